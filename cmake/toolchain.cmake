# Language level, warnings, sanitizers, precompiled headers, ccache and mold: everything about how a file is compiled.
option(QUARRY_FUZZ "build the libFuzzer targets too, and instrument for them" OFF)
option(QUARRY_ONLY_THREAD_TESTS "of the unit tests only those that start threads" OFF)
set(QUARRY_SANITIZE "" CACHE STRING "comma-separated sanitizers, or empty")

set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)

# Debian's march is x86-64; the code dispatches to wider vectors at run time. SSE4.2 is the floor (any server since 2009).
set(QUARRY_COMMON_FLAGS "-march=x86-64-v2 -fPIC -fno-omit-frame-pointer -fno-strict-aliasing")
set(CMAKE_CXX_FLAGS "${CMAKE_CXX_FLAGS} ${QUARRY_COMMON_FLAGS}")
set(CMAKE_CXX_FLAGS_DEV "-O1 -g1 -DQUARRY_DEV=1")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")
set(CMAKE_C_FLAGS_DEV "-O1 -g1")

if(QUARRY_SANITIZE)
  # Left out of `undefined`: what the address sanitizer sees too (null, object-size), and what costs a third of the build (vptr, function,
  # pointer-overflow).
  add_compile_options(-fsanitize=${QUARRY_SANITIZE} -fno-sanitize=null,object-size,vptr,function,pointer-overflow -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${QUARRY_SANITIZE})
  if(QUARRY_SANITIZE MATCHES address)
    # Functions with many accesses call the checks instead of holding them: coroutines compile in a quarter less time; small hot loops stay fast.
    add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-mllvm -asan-instrumentation-with-call-threshold=24>")
  endif()
endif()
if(QUARRY_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link) # unit tests link it too: without a fuzzer it calls empty functions of the sanitizer's runtime
endif()

find_program(CCACHE ccache)
if(CCACHE)
  # Precompiled headers and ccache agree only when the time macros and the PCH's own time stamp are left out.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE})
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-Xclang -fno-pch-timestamp>")
endif()
find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_library(quarry_warnings INTERFACE)
target_compile_options(quarry_warnings INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
  -Wno-unused-parameter -Wno-missing-field-initializers $<$<CONFIG:Dev>:-Werror>)
