# NCCL: beside libtorch, as PyPI's packages lie, so that the process has one NCCL; else in the CUDA toolkit or
# where NCCL_ROOT says, on the system, or in build/nccl, where launch/setup.sh unpacks it.
#
# Defines: NCCL::nccl, NCCL_VERSION.
get_filename_component(_libtorch "${Libtorch_CPU_LIBRARY}" DIRECTORY)
set(_places "${_libtorch}/../../nvidia/nccl" ${CUDAToolkit_LIBRARY_ROOT} ${CUDAToolkit_ROOT})
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${_places} ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include
          PATHS "${CMAKE_SOURCE_DIR}/build/nccl")
find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2
             HINTS ${_places} ${CUDAToolkit_LIBRARY_DIR} PATH_SUFFIXES lib lib64
             PATHS "${CMAKE_SOURCE_DIR}/build/nccl")
if(NCCL_INCLUDE_DIR)
  file(STRINGS "${NCCL_INCLUDE_DIR}/nccl.h" _parts REGEX "^#define NCCL_(MAJOR|MINOR|PATCH) [0-9]+")
  list(TRANSFORM _parts REPLACE ".* ([0-9]+)$" "\\1")
  list(JOIN _parts "." NCCL_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  NCCL REQUIRED_VARS NCCL_LIBRARY NCCL_INCLUDE_DIR VERSION_VAR NCCL_VERSION
  REASON_FAILURE_MESSAGE "run launch/setup.sh gpu, or name its folder by -DNCCL_ROOT=DIR")

if(NCCL_FOUND AND NOT TARGET NCCL::nccl)
  get_filename_component(_path "${NCCL_LIBRARY}" ABSOLUTE)
  add_library(NCCL::nccl SHARED IMPORTED)
  set_target_properties(NCCL::nccl PROPERTIES
    IMPORTED_LOCATION "${_path}" INTERFACE_INCLUDE_DIRECTORIES "${NCCL_INCLUDE_DIR}")
endif()
mark_as_advanced(NCCL_INCLUDE_DIR NCCL_LIBRARY)
