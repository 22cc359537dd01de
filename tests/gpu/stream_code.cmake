# Compiles a source of products that stream their weights (coded_stream_*, gemv), or of the lean
# decode kernel, and looks at what came out (stream_machine_code.py): no
# spills, and the first stages of the weights are asked for before the kernel waits for the one
# ahead of it.
#   cmake -DNVCC=... -DPYTHON=... -DROOT=... -DSTEM=SOURCE -DKERNELS=N -DWORK=FOLDER
#         -P stream_code.cmake
cmake_minimum_required(VERSION 3.25)

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
execute_process(
    COMMAND ${NVCC} -std=c++17 -O3 -DNDEBUG -I${ROOT} -gencode=arch=compute_90a,code=sm_90a -cubin
            -o ${WORK}/${STEM}.cubin ${ROOT}/gpu/kernels/${STEM}.cu
    OUTPUT_VARIABLE log ERROR_VARIABLE log RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "nvcc failed:\n${log}")
endif()
execute_process(
    COMMAND ${PYTHON} ${ROOT}/tests/gpu/stream_machine_code.py ${KERNELS} ${WORK}/${STEM}.cubin
    OUTPUT_VARIABLE told ERROR_VARIABLE told RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "machine code:\n${told}")
endif()
message("${told}")
file(REMOVE_RECURSE ${WORK})
