"""Whether a job's model can become a GGUF, and everything finds room: said before training, and writing nothing."""

from __future__ import annotations

from cutoff.artifacts import Roots, inside, require_room
from cutoff.errors import ProgramFailed
from cutoff.hub.disk_needs import ModelSize, install_needs, made_needs
from cutoff.llama_cpp import LlamaCpp, require_known
from cutoff.spec import spec_from_proto
from cutoff.telemetry import logger
from cutoff.v1 import gguf_converter_pb2

_LOG = logger(__name__)


def check_model(roots: Roots, request: gguf_converter_pb2.CheckModelRequest) -> str:
    """Answers CheckModel.

    Here and not in prepare, because the converter alone has llama.cpp and sees the models folder.

    Returns:
        The version of the llama.cpp that knows the model.

    Raises:
        InvalidInput: The description lies outside of the artifacts.
        NotFound: The llama.cpp the job asks for is not there.
        DiskFull: File systems have no room for what the job makes and installs; each shortfall is named.
        Refused: llama.cpp does not know the model's tokenizer or architecture.
    """
    spec = spec_from_proto(request.spec)
    folder = inside(roots.artifacts, request.description)
    size = ModelSize.of_folder(folder, request.parameters)
    needs = made_needs(spec, size, roots.artifacts)
    if spec.install.enabled:
        types, stays = spec.convert.quant_types, spec.convert.keep_f16
        needs += install_needs(size.parameters, types, roots.artifacts, roots.models, stays)
    require_room(needs, f"everything that {spec.name} makes and installs")
    llama = LlamaCpp.of_job(roots.cache, spec.convert.llama_cpp_path)
    try:
        require_known(llama, folder, spec.base_model)
    except ProgramFailed as error:  # with the weights it may well be read; if not, the conversion says so
        _LOG.warning("the vocabulary alone could not be converted", model=spec.base_model, message=error.message)
    return llama.version()
