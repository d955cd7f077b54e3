import runpy
from pathlib import Path

# Test folders are no packages (--import-mode=importlib): shared fixtures are read from their files.
_tiny = runpy.run_path(str(Path(__file__).with_name("tiny.py")))
llama, tiny_model, tiny_f16 = _tiny["llama"], _tiny["tiny_model"], _tiny["tiny_f16"]
openai = runpy.run_path(str(Path(__file__).with_name("openai_server.py")))["openai"]
