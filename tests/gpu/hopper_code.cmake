# Compiles a source of a Hopper kernel and looks at what came out: no spills, no products put one
# after the other (C75xx), wgmma of these widths, these words and register budgets in the PTX of
# both types; and in the machine code (hopper_machine_code.py).
#   cmake -DNVCC=... -DPYTHON=... -DROOT=... -DSTEM=SOURCE -DWIDTHS=N,... -DREGISTERS=FEWER,MORE
#         -DWORDS=WORD,... [-DKERNELS=N] -DWORK=FOLDER -P hopper_code.cmake
# WIDTHS=e4m3: products of codes, whose widths are among the words; there are no boxes of q.
cmake_minimum_required(VERSION 3.25)

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
set(stem ${STEM})
string(REPLACE "," ";" widths ${WIDTHS})
string(REPLACE "," ";" words ${WORDS})
string(REPLACE "," ";" registers ${REGISTERS})
list(GET registers 0 fewer)
list(GET registers 1 more)
execute_process(
    COMMAND ${NVCC} -std=c++17 -O3 -DNDEBUG -I${ROOT} -gencode=arch=compute_90a,code=sm_90a -cubin
            -Xptxas -v --keep --keep-dir ${WORK} -o ${WORK}/${stem}.cubin
            ${ROOT}/gpu/kernels/${stem}.cu
    OUTPUT_VARIABLE log ERROR_VARIABLE log RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "nvcc failed:\n${log}")
endif()
if(log MATCHES "warning|C75[0-9][0-9]")
  message(FATAL_ERROR "ptxas complains:\n${log}")
endif()
string(REGEX MATCHALL "[0-9]+ bytes stack frame, [0-9]+ bytes spill stores, [0-9]+ bytes spill loads"
       frames "${log}")
list(LENGTH frames kernels)
if(NOT DEFINED KERNELS)
  set(KERNELS 2)  # of two types
endif()
if(NOT kernels EQUAL KERNELS)
  message(FATAL_ERROR "expected ${KERNELS} kernels, found ${kernels}:\n${log}")
endif()
foreach(frame IN LISTS frames)
  if(NOT frame STREQUAL "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads")
    message(FATAL_ERROR "registers are spilled: ${frame}")
  endif()
endforeach()

file(READ ${WORK}/${stem}.ptx ptx)
set(boxes "cp.async.bulk.tensor.3d")
if(widths STREQUAL "e4m3")
  set(widths "")
  set(boxes "")
endif()
foreach(type bf16 f16)
  foreach(width IN LISTS widths)
    if(NOT ptx MATCHES "wgmma.mma_async.sync.aligned.m64n${width}k16.f32.${type}.${type}")
      message(FATAL_ERROR "no wgmma of ${width} columns in ${type}")
    endif()
  endforeach()
endforeach()
foreach(word IN LISTS words boxes ITEMS "setmaxnreg.dec.sync.aligned.u32 ${fewer}"
        "setmaxnreg.inc.sync.aligned.u32 ${more}")
  string(FIND "${ptx}" "${word}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "no ${word} in the PTX")
  endif()
endforeach()

execute_process(COMMAND ${PYTHON} ${ROOT}/tests/gpu/hopper_machine_code.py ${WORK}/${stem}.cubin
                OUTPUT_VARIABLE told ERROR_VARIABLE told RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "machine code:\n${told}")
endif()
message("${told}")
file(REMOVE_RECURSE ${WORK})
