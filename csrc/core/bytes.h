/*
 * Big-endian integers in byte arrays, at any alignment.
 *
 * Written so that compilers make each a load or store and a byte swap: GCC 12 does not see that by
 * itself in a sequence of byte stores, and message headers are written some million times a second.
 */
#ifndef WEIR_BYTES_H
#define WEIR_BYTES_H

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define WEIR_BE16(value) __builtin_bswap16(value)
#define WEIR_BE32(value) __builtin_bswap32(value)
#define WEIR_BE64(value) __builtin_bswap64(value)
#elif defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define WEIR_BE16(value) (value)
#define WEIR_BE32(value) (value)
#define WEIR_BE64(value) (value)
#else
#error "weir needs a compiler that says which byte order the machine has (GCC or Clang)"
#endif

static inline void weir_put_u16(unsigned char *out, uint16_t value) {
  value = WEIR_BE16(value);
  memcpy(out, &value, sizeof value);
}

static inline void weir_put_u32(unsigned char *out, uint32_t value) {
  value = WEIR_BE32(value);
  memcpy(out, &value, sizeof value);
}

static inline void weir_put_u64(unsigned char *out, uint64_t value) {
  value = WEIR_BE64(value);
  memcpy(out, &value, sizeof value);
}

static inline uint16_t weir_get_u16(const unsigned char *in) {
  uint16_t value;
  memcpy(&value, in, sizeof value);
  return WEIR_BE16(value);
}

static inline uint32_t weir_get_u32(const unsigned char *in) {
  uint32_t value;
  memcpy(&value, in, sizeof value);
  return WEIR_BE32(value);
}

static inline uint64_t weir_get_u64(const unsigned char *in) {
  uint64_t value;
  memcpy(&value, in, sizeof value);
  return WEIR_BE64(value);
}

#endif
