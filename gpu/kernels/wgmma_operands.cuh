// The operands of wgmma's asm statements: lists of a thread's sums d[i] and of their registers.
#pragma once

// clang-format off
#define ATTN_SUMS_8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), \
  "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define ATTN_SUMS_16 ATTN_SUMS_8(0), ATTN_SUMS_8(8)
#define ATTN_SUMS_32 ATTN_SUMS_16, ATTN_SUMS_8(16), ATTN_SUMS_8(24)
#define ATTN_SUMS_64 ATTN_SUMS_32, ATTN_SUMS_8(32), ATTN_SUMS_8(40), ATTN_SUMS_8(48), ATTN_SUMS_8(56)
#define ATTN_SUMS_96 ATTN_SUMS_64, ATTN_SUMS_8(64), ATTN_SUMS_8(72), ATTN_SUMS_8(80), ATTN_SUMS_8(88)
#define ATTN_SUMS_128 ATTN_SUMS_96, ATTN_SUMS_8(96), ATTN_SUMS_8(104), ATTN_SUMS_8(112), ATTN_SUMS_8(120)
// "%0, %1, ...": the sums of an instruction.
#define ATTN_REGISTERS_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define ATTN_REGISTERS_16 ATTN_REGISTERS_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define ATTN_REGISTERS_32 ATTN_REGISTERS_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define ATTN_REGISTERS_64 \
  ATTN_REGISTERS_32 ", " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define ATTN_REGISTERS_96 \
  ATTN_REGISTERS_64 ", " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define ATTN_REGISTERS_128 \
  ATTN_REGISTERS_96 ", " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
// clang-format on
