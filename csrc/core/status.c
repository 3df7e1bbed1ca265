#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

/* Indexed by -status. */
static const struct {
  const char *name;
  const char *text;
} table[] = {
    {"ok", "success"},
    {"again", "not possible yet: would have to wait"},
    {"nomem", "out of memory"},
    {"limit", "a configured limit would be exceeded"},
    {"protocol", "the peer broke the protocol"},
    {"version", "the peer speaks an unsupported version"},
    {"closed", "closed"},
    {"reset", "reset by the peer"},
    {"timeout", "timed out"},
    {"invalid", "invalid argument"},
    {"offline", "nobody is there to receive"},
};

#define UNKNOWN SIZE_MAX

static size_t index_of(weir_status status) {
  size_t index = (size_t)0 - (size_t)status;
  return index < sizeof table / sizeof table[0] ? index : UNKNOWN;
}

const char *weir_status_name(weir_status status) {
  size_t index = index_of(status);
  return index == UNKNOWN ? "unknown" : table[index].name;
}

const char *weir_status_text(weir_status status) {
  size_t index = index_of(status);
  return index == UNKNOWN ? "unknown status" : table[index].text;
}
