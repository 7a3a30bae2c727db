# Elementary functions are those of launch/base/math.h and draws those of launch/base/random.h: the last bit of a C or C++
# library's own would be in weights and metrics.   cmake -DROOT=<repository> -P own_math.cmake
cmake_minimum_required(VERSION 3.25)
set(allowed
  io/files/files.cpp  # names of temporaries: nobody else may have the same
  io/synth/synth_model.cpp io/synth/synth_tables.cpp  # have their own, which the bytes of a replica are of
  launch/base/math.h
  trainer/planning/plan.cpp)  # estimates
set(functions "(exp|exp2|expm1|exp10|log|log2|log10|log1p|pow|sin|cos|tan|asin|acos|atan|atan2|sinh|cosh|tanh|cbrt|hypot|erf|erfc|tgamma|lgamma)[fl]? *\\( *[^ )]")
set(draws "std::([a-z_]+_distribution|mt19937|minstd_rand|ranlux|random_device|default_random_engine|shuffle|sample)")
# Qualified, or after an operator: declarations are not meant, nor the logger's `log()`.
set(refused "std *:: *${functions}|__builtin_${functions}|[-+*/=(,?] *::${functions}|[-+*/=(,?] *${functions}|return +${functions}|${draws}")
set(faults "")
set(seen 0)
foreach(folder launch io sharding models trainer)
  file(GLOB_RECURSE sources RELATIVE "${ROOT}" "${ROOT}/${folder}/*.h" "${ROOT}/${folder}/*.cpp"
       "${ROOT}/${folder}/*.cu")
  foreach(source ${sources})
    if(source IN_LIST allowed)
      continue()
    endif()
    math(EXPR seen "${seen} + 1")
    file(STRINGS "${ROOT}/${source}" lines REGEX "${refused}")
    foreach(line IN LISTS lines)
      string(REGEX REPLACE "//.*$" "" code "${line}")
      if(code MATCHES "${refused}")
        string(APPEND faults "  ${source}: ${code}\n")
      endif()
    endforeach()
  endforeach()
endforeach()
if(faults)
  message(FATAL_ERROR "launch/base/math.h and launch/base/random.h have these with the same bits everywhere:\n${faults}")
endif()
if(seen EQUAL 0)
  message(FATAL_ERROR "no sources found under ${ROOT}")
endif()
