import runpy
from pathlib import Path

# Test folders are no packages (--import-mode=importlib): shared code is read from its files.
_tiny = runpy.run_path(str(Path(__file__).parents[1] / "llama_cpp" / "tiny.py"))
llama, tiny_model, tiny_f16 = _tiny["llama"], _tiny["tiny_model"], _tiny["tiny_f16"]
