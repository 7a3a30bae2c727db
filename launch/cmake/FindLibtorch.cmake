# libtorch's own libraries: libtorch_cpu and libc10, and where they are there, libtorch_cuda and libc10_cuda.
#
# Looked for in CMAKE_PREFIX_PATH (a libtorch folder, or a Python `site-packages`), then in build/libtorch,
# where launch/setup.sh unpacks the PyPI wheel. TorchConfig.cmake is not used: that of a CUDA build demands
# a CUDA toolkit, which a CPU program does not need.
#
# Defines: Libtorch::cpu, Libtorch_VERSION; Libtorch::cuda, and with the CUDA runtime of the same wheel
# Libtorch::cudart: a process has room for one CUDA runtime, and libtorch asks for its own.
find_path(Libtorch_INCLUDE_DIR ATen/ATen.h
          PATH_SUFFIXES include torch/include PATHS "${CMAKE_SOURCE_DIR}/build/libtorch")
find_library(Libtorch_CPU_LIBRARY torch_cpu
             PATH_SUFFIXES lib torch/lib PATHS "${CMAKE_SOURCE_DIR}/build/libtorch")
find_library(Libtorch_C10_LIBRARY c10
             PATH_SUFFIXES lib torch/lib PATHS "${CMAKE_SOURCE_DIR}/build/libtorch")
if(Libtorch_INCLUDE_DIR AND EXISTS "${Libtorch_INCLUDE_DIR}/torch/headeronly/version.h")
  file(STRINGS "${Libtorch_INCLUDE_DIR}/torch/headeronly/version.h" _parts
       REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) [0-9]+")
  list(TRANSFORM _parts REPLACE ".* ([0-9]+)$" "\\1")
  list(JOIN _parts "." Libtorch_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  Libtorch REQUIRED_VARS Libtorch_CPU_LIBRARY Libtorch_C10_LIBRARY Libtorch_INCLUDE_DIR
  VERSION_VAR Libtorch_VERSION
  REASON_FAILURE_MESSAGE "run launch/setup.sh, or name a libtorch by -DCMAKE_PREFIX_PATH=DIR")

if(Libtorch_FOUND AND NOT TARGET Libtorch::cpu)
  add_library(Libtorch::c10 SHARED IMPORTED)
  set_target_properties(Libtorch::c10 PROPERTIES
    IMPORTED_LOCATION "${Libtorch_C10_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${Libtorch_INCLUDE_DIR}")
  add_library(Libtorch::cpu SHARED IMPORTED)
  set_target_properties(Libtorch::cpu PROPERTIES
    IMPORTED_LOCATION "${Libtorch_CPU_LIBRARY}"
    INTERFACE_LINK_LIBRARIES Libtorch::c10)
endif()

get_filename_component(_lib "${Libtorch_CPU_LIBRARY}" DIRECTORY)
find_library(Libtorch_CUDA_LIBRARY torch_cuda PATHS "${_lib}" NO_DEFAULT_PATH)
find_library(Libtorch_C10_CUDA_LIBRARY c10_cuda PATHS "${_lib}" NO_DEFAULT_PATH)
find_library(Libtorch_CUDART_LIBRARY NAMES libcudart.so.13 PATHS "${_lib}/../../nvidia/cu13/lib" NO_DEFAULT_PATH)
if(Libtorch_FOUND AND Libtorch_CUDART_LIBRARY AND NOT TARGET Libtorch::cudart)
  get_filename_component(_path "${Libtorch_CUDART_LIBRARY}" ABSOLUTE)
  add_library(Libtorch::cudart SHARED IMPORTED)
  set_target_properties(Libtorch::cudart PROPERTIES IMPORTED_LOCATION "${_path}")
endif()
if(Libtorch_FOUND AND Libtorch_CUDA_LIBRARY AND Libtorch_C10_CUDA_LIBRARY AND NOT TARGET Libtorch::cuda)
  add_library(Libtorch::c10_cuda SHARED IMPORTED)
  set_target_properties(Libtorch::c10_cuda PROPERTIES
    IMPORTED_LOCATION "${Libtorch_C10_CUDA_LIBRARY}"
    INTERFACE_LINK_LIBRARIES Libtorch::c10)
  add_library(Libtorch::cuda SHARED IMPORTED)
  # It registers itself, no symbol of it is asked for; what it needs in turn is found where the program runs.
  set_target_properties(Libtorch::cuda PROPERTIES
    IMPORTED_LOCATION "${Libtorch_CUDA_LIBRARY}"
    INTERFACE_LINK_LIBRARIES "Libtorch::c10_cuda;Libtorch::cpu"
    INTERFACE_LINK_OPTIONS "LINKER:--no-as-needed;LINKER:--unresolved-symbols=ignore-in-shared-libs")
endif()
mark_as_advanced(Libtorch_INCLUDE_DIR Libtorch_CPU_LIBRARY Libtorch_C10_LIBRARY
  Libtorch_CUDA_LIBRARY Libtorch_C10_CUDA_LIBRARY Libtorch_CUDART_LIBRARY)
