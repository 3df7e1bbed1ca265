/*
 * weir_list: intrusive doubly linked list, for objects that are in a few lists at a time.
 *
 * A weir_link is a member of the object; a link that is in no list points at itself, so that
 * removing is always safe. weir_list_of() goes from a link back to its object.
 */
#ifndef WEIR_LIST_H
#define WEIR_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct weir_link {
  struct weir_link *prev, *next;
} weir_link;

typedef weir_link weir_list; /* the list itself is a link: its next is the first member */

#define weir_list_of(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void weir_list_init(weir_link *link) {
  link->prev = link;
  link->next = link;
}

static inline bool weir_list_linked(const weir_link *link) { return link->next != link; }
static inline bool weir_list_empty(const weir_list *list) { return list->next == list; }

static inline void weir_list_remove(weir_link *link) {
  link->prev->next = link->next;
  link->next->prev = link->prev;
  weir_list_init(link);
}

static inline void weir_list_append(weir_list *list, weir_link *link) {
  link->prev = list->prev;
  link->next = list;
  list->prev->next = link;
  list->prev = link;
}

static inline weir_link *weir_list_first(const weir_list *list) {
  return weir_list_empty(list) ? NULL : list->next;
}

#endif
