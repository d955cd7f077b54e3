import runpy
from pathlib import Path

# Test folders are no packages (--import-mode=importlib): shared fixtures are read from their files.
_shared = Path(__file__).parents[1] / "llama_cpp"
_tiny = runpy.run_path(str(_shared / "tiny.py"))
llama, tiny_model, tiny_f16 = _tiny["llama"], _tiny["tiny_model"], _tiny["tiny_f16"]
tiny_questions = _tiny["tiny_questions"]
openai = runpy.run_path(str(_shared / "openai_server.py"))["openai"]
