#pragma once

// Stands in for gpu/kernels/mma.cuh: what the emulated kernels use of it.

#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/element.cuh"
#include "tests/gpu/emulator/device.h"

namespace attn::gpu {

inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(static_cast<const unsigned char*>(p) - memory);
}
template <typename T>
std::uint32_t pack2(float low, float high) {
  const T pair[2] = {from_float<T>(low), from_float<T>(high)};
  std::uint32_t r = 0;
  std::memcpy(&r, pair, 4);
  return r;
}
inline void copy_async_16(std::uint32_t shared, const void* global, bool valid) {
  emulator::copy_async(shared, global, valid);
}
inline void load_matrix_x4(std::uint32_t (&r)[4], std::uint32_t address) {
  emulator::load_matrices(r, address);
}
inline void load_matrix_x4_transposed(std::uint32_t (&r)[4], std::uint32_t address) {
  emulator::load_matrices(r, address);
  for (std::uint32_t& matrix : r) matrix = emulator::transpose(matrix);
}
inline std::uint32_t transpose_matrix(std::uint32_t x) { return emulator::transpose(x); }
inline void copy_async_commit() { emulator::copies_commit(); }
template <int kPending>
void copy_async_wait() {
  emulator::copies_wait(kPending);
}
template <int kBytes>
void copy_async_small(std::uint32_t shared, const void* global, bool valid) {
  emulator::copy_async(shared, global, valid, kBytes);
}
inline void barrier_init(std::uint64_t* barrier, unsigned count) {
  emulator::barrier_init(barrier, count);
}
inline void barrier_arrive(std::uint64_t* barrier) { emulator::barrier_arrive(barrier, 0); }
inline void barrier_wait(std::uint64_t* barrier, unsigned parity) {
  emulator::barrier_wait(barrier, parity);
}
inline void allow_dependent_launch() {}
inline void wait_for_previous_grid() { emulator::wait_for_previous_grid(); }
inline void cluster_arrive() { emulator::cluster_arrive(true); }
inline void cluster_arrive_relaxed() { emulator::cluster_arrive(false); }
inline void cluster_wait() { emulator::cluster_wait(); }
inline std::uint32_t cluster_address(std::uint32_t shared, unsigned rank) {
  return emulator::cluster_address(shared, rank);
}
inline void cluster_store(std::uint32_t address, float2 x) {
  emulator::cluster_store(address, &x, sizeof(x));
}
inline void cluster_store(std::uint32_t address, float x) {
  emulator::cluster_store(address, &x, sizeof(x));
}
inline void cluster_store(std::uint32_t address, float4 x) {
  emulator::cluster_store(address, &x, sizeof(x));
}
inline unsigned count_arrival(unsigned* counter) { return atomicAdd(counter, 1U); }
inline std::uint32_t mail_word(float x) {
  const std::uint32_t bits = ~__float_as_uint(x);
  return bits != 0 ? bits : 1U;
}
template <std::size_t kWords>
void leave_words(float* to, const std::array<float, kWords>& words) {
  for (std::size_t i = 0; i < kWords; ++i) {
    const std::uint32_t word = mail_word(words[i]);
    std::memcpy(to + i, &word, 4);
    emulator::mail_left();
  }
}
inline void store_mail(float4* to, float4 x) {
  leave_words<4>(reinterpret_cast<float*>(to), {x.x, x.y, x.z, x.w});
}
inline void store_mail(float2* to, float2 x) {
  leave_words<2>(reinterpret_cast<float*>(to), {x.x, x.y});
}
inline std::uint64_t count_relaxed(std::uint64_t* counter, std::uint64_t x) {
  const std::uint64_t before = *counter;
  *counter += x;
  return before;
}
inline bool see_mail(const float2* from, float2& x) {
  std::uint32_t words[2];
  std::memcpy(words, from, 8);
  if (words[0] == 0 || words[1] == 0) {
    emulator::mail_wait();
    return false;
  }
  for (std::uint32_t& word : words) word = ~word;
  std::memcpy(&x, words, 8);
  return true;
}
inline bool take_mail(float4* from4, float2* from2, float4& x4, float2& x2) {
  std::uint32_t words[6];
  std::memcpy(words, from4, 16);
  std::memcpy(words + 4, from2, 8);
  for (std::uint32_t& word : words) {
    if (word == 0) {
      emulator::mail_wait();
      return false;
    }
    word = ~word;
  }
  std::memcpy(&x4, words, 16);
  std::memcpy(&x2, words + 4, 8);
  std::memset(from4, 0, 16);
  std::memset(from2, 0, 8);
  return true;
}
inline uint4 load_once(const uint4* p, bool valid) { return valid ? *p : make_uint4(0, 0, 0, 0); }
inline void prefetch_stretch_to_l2(const void* p, unsigned bytes) {
  emulator::touch_stretch(p, bytes);
}
inline void prefetch_to_l2(const void* p) { (void)*static_cast<const volatile char*>(p); }
template <typename T>
void mma_16x8x16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  emulator::warp_product(c, a, b0, b1, TypeOf<T>::value == Type::kFloat16);
}
inline float exp2_approximate(float x) { return std::exp2(x); }

}  // namespace attn::gpu
