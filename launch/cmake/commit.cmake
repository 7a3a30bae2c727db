# Writes kuaitrain_commit.h when the commit has changed. -DSOURCE= the repository, -DOUTPUT= the header.
execute_process(COMMAND git -C "${SOURCE}" describe --always --dirty --abbrev=12 --match=NeVeR
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit)
  set(commit "unknown")
endif()
file(CONFIGURE OUTPUT "${OUTPUT}" CONTENT "#pragma once\n#define KT_COMMIT \"${commit}\"\n")
