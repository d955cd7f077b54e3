# The matrix of images: the coordinator, and four stage services for each accelerator.
#
#   docker buildx bake -f docker/docker-bake.hcl              the CPU images
#   docker buildx bake -f docker/docker-bake.hcl cuda|rocm    the others
#   ROCM=6.2 docker buildx bake -f docker/docker-bake.hcl rocm
#
# compose.yaml builds the same images with the same arguments (tests/containers compares them).

variable "VERSION" { default = "0.1.0" }
variable "REVISION" { default = "" }
variable "REGISTRY" { default = "cutoff" }
variable "BASE" { default = "debian:bookworm-slim" }

variable "CUDA" { default = "130" }   # that of torch's build on PyPI, which docker/requirements/torch-cuda.txt pins
variable "ROCM" { default = "6.4" }
variable "ROCM_TORCH" {               # each of PyTorch's ROCm indexes carries other versions (deploy/host/choose_torch.py)
  default = { "6.4" = "2.9.1", "6.2" = "2.5.1", "6.1" = "2.6.0", "6.0" = "2.4.1" }
}

# llama.cpp runs on the CPU, unless BACKEND says otherwise for the evaluator: conversion needs nothing else, and the
# evaluation of a GGUF is short. The compilers of cuda and hip come with their vendors' images.
variable "BACKEND" { default = "cpu" }
variable "LLAMA_BUILDERS" {
  default = {
    cpu    = "debian:bookworm-slim"
    vulkan = "debian:bookworm-slim"
    cuda   = "nvidia/cuda:13.0.1-devel-ubuntu22.04"
    hip    = "rocm/dev-ubuntu-22.04:6.4.4-complete"
  }
}
variable "LLAMA_BUILDER" { default = "" }
variable "CMAKE_ARGS" { default = "" }

# A closed network: the CA bundle that pip trusts, a folder with the CPU build of PyTorch, the network of builds.
variable "CA" { default = "" }
variable "WHEELS" { default = "" }
variable "NETWORK" { default = "default" }

group "default" { targets = ["coordinator", "cpu"] }

target "common" {
  dockerfile = "docker/Dockerfile"
  args       = { BASE = BASE, VERSION = VERSION, REVISION = REVISION }
  secret     = CA != "" ? ["id=ca,src=${CA}"] : []
  network    = NETWORK
  contexts   = WHEELS != "" ? { wheels = WHEELS } : {}
}

target "coordinator" {
  inherits = ["common"]
  target   = "coordinator"
  tags     = ["${REGISTRY}/coordinator:${VERSION}"]
}

variable "SERVICES" {
  default = [
    { name = "trainer", family = "stage", grpc = "50052", metrics = "9102" },
    { name = "merger", family = "stage", grpc = "50053", metrics = "9103" },
    { name = "gguf-converter", family = "stage-llama", grpc = "50054", metrics = "9104" },
    { name = "evaluator", family = "stage-llama", grpc = "50055", metrics = "9105" },
  ]
}

variable "ACCELERATORS" {
  default = [
    { name = "cpu", tag = "cpu", torch = "cpu", rocm_torch = "" },
    { name = "cuda", tag = "cu${CUDA}", torch = "cuda", rocm_torch = "" },
    { name = "rocm", tag = "rocm${ROCM}", torch = "rocm${ROCM}", rocm_torch = ROCM_TORCH[ROCM] },
  ]
}

group "cpu" { targets = [for service in SERVICES : "${service.name}-cpu"] }
group "cuda" { targets = [for service in SERVICES : "${service.name}-cuda"] }
group "rocm" { targets = [for service in SERVICES : "${service.name}-rocm"] }

target "stages" {
  name     = "${service.name}-${on.name}"
  matrix   = { service = SERVICES, on = ACCELERATORS }
  inherits = ["common"]
  target   = "service"
  tags     = ["${REGISTRY}/${service.name}:${VERSION}-${on.tag}"]
  args = {
    SERVICE            = service.name
    FAMILY             = service.family
    GRPC_PORT          = service.grpc
    METRICS_PORT       = service.metrics
    TORCH              = on.torch
    ROCM_TORCH_VERSION = on.rocm_torch
    BACKEND            = service.name == "evaluator" ? BACKEND : "cpu"
    LLAMA_BUILDER      = service.name == "evaluator" ? builder() : BASE
    CMAKE_ARGS         = CMAKE_ARGS
  }
}

function "builder" {
  params = []
  result = LLAMA_BUILDER != "" ? LLAMA_BUILDER : LLAMA_BUILDERS[BACKEND]
}
