/*
 * Big-endian integers in byte arrays, at any alignment.
 */
#ifndef WEIR_BYTES_H
#define WEIR_BYTES_H

#include <stdint.h>

static inline void weir_put_u16(unsigned char *out, uint16_t value) {
  out[0] = (unsigned char)(value >> 8);
  out[1] = (unsigned char)value;
}

static inline void weir_put_u32(unsigned char *out, uint32_t value) {
  weir_put_u16(out, (uint16_t)(value >> 16));
  weir_put_u16(out + 2, (uint16_t)value);
}

static inline void weir_put_u64(unsigned char *out, uint64_t value) {
  weir_put_u32(out, (uint32_t)(value >> 32));
  weir_put_u32(out + 4, (uint32_t)value);
}

static inline uint16_t weir_get_u16(const unsigned char *in) {
  return (uint16_t)(in[0] << 8 | in[1]);
}

static inline uint32_t weir_get_u32(const unsigned char *in) {
  /* One expression of four bytes: compilers make it a load and a byte swap. */
  return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

static inline uint64_t weir_get_u64(const unsigned char *in) {
  return (uint64_t)weir_get_u32(in) << 32 | weir_get_u32(in + 4);
}

#endif
