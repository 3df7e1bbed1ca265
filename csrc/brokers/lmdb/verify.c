#include "brokers/lmdb/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  PAGE_BRANCH = 0x01,
  PAGE_LEAF = 0x02,
  PAGE_OVERFLOW = 0x04,
  PAGE_META = 0x08,
  NODE_BIG = 0x01,
  NODE_SUB = 0x02,
  TREE_NUMBERS = 0x08, /* keys are numbers: the free pages */
  MAX_DEPTH = 32,      /* of LMDB's cursors */
  MAX_KEY = 511,
  MAX_PAGE = 65536,
  MORE_PAGES = 65536, /* that a commit may have taken and given back behind the file's end */
};

static const uint32_t MAGIC = 0xBEEFC0DE;
static const uint32_t DATA_VERSION = 1;
static const uint64_t NO_PAGE = UINT64_MAX;
static const uint64_t MAX_TXN = UINT64_MAX / 2;

typedef struct {
  uint64_t number;
  uint16_t pad, flags;
  uint16_t lower, upper; /* of an overflow page: its pages, in 32 bits */
} page_head;

typedef struct {
  uint16_t lo, hi, flags, ksize;
} node_head;

typedef struct {
  uint32_t pad;
  uint16_t flags, depth;
  uint64_t branch_pages, leaf_pages, overflow_pages, entries, root;
} tree;

typedef struct {
  uint32_t magic, version;
  uint64_t address, mapsize;
  tree trees[2]; /* of free pages, and the main one */
  uint64_t last_page, txn;
} meta;

_Static_assert(sizeof(page_head) == 16 && sizeof(node_head) == 8, "as in the file");
_Static_assert(sizeof(tree) == 48 && sizeof(meta) == 136, "as in the file");

/* What a tree is for. */
typedef enum {
  FREE_PAGES,
  DATABASES,
  ITEMS
} use;

typedef struct {
  const unsigned char *bytes;
  size_t size, page; /* of the file, and of a page */
  uint64_t pages;    /* that are whole */
  uint64_t last;     /* page that was ever used */
  unsigned char *seen;
  char *why;
  size_t why_size;
} file;

static bool bad(const file *f, const char *what) {
  snprintf(f->why, f->why_size, "%s", what);
  return false;
}

static bool bad_page(const file *f, uint64_t number, const char *what) {
  snprintf(f->why, f->why_size, "page %llu %s", (unsigned long long)number, what);
  return false;
}

/* Notes that a page is in use, or free. */
static bool note(file *f, uint64_t number) {
  if (number < 2 || number > f->last) {
    return bad_page(f, number, "was never used");
  }
  unsigned char *byte = &f->seen[number / 8], bit = (unsigned char)(1u << number % 8);
  if (*byte & bit) return bad_page(f, number, "is used twice");
  *byte |= bit;
  return true;
}

/* The same of one that is to be read. */
static bool reach(file *f, uint64_t number) {
  return note(f, number) && (number < f->pages || bad_page(f, number, "is not in the file"));
}

static bool check_overflow(file *f, uint64_t number, uint64_t size) {
  if (!reach(f, number)) return false;
  page_head head;
  memcpy(&head, f->bytes + number * f->page, sizeof head);
  uint64_t pages = head.lower | (uint64_t)head.upper << 16;
  uint64_t needed = (sizeof head + size + f->page - 1) / f->page;
  if (head.number != number || head.flags != PAGE_OVERFLOW || pages < needed) {
    return bad_page(f, number, "does not begin a large value");
  }
  if (pages > f->pages - number) return bad(f, "a large value is cut off");
  for (uint64_t i = 1; i < pages; i++) {
    if (!reach(f, number + i)) return false;
  }
  return true;
}

/* A list of pages that LMDB will use again: its length, then the numbers, the greatest first. */
static bool check_free(file *f, const unsigned char *list, uint64_t size) {
  uint64_t count, before = UINT64_MAX;
  if (size < sizeof count) return bad(f, "a list of free pages is cut off");
  memcpy(&count, list, sizeof count);
  if (count > size / sizeof count - 1) return bad(f, "a list of free pages is cut off");
  for (uint64_t i = 1; i <= count; i++) {
    uint64_t number;
    memcpy(&number, list + i * sizeof number, sizeof number);
    if (number >= before) return bad(f, "a list of free pages is not in order");
    if (!note(f, number)) return false;
    before = number;
  }
  return true;
}

static bool check_tree(file *f, const tree *t, use use);
static bool check_page(file *f, uint64_t number, int depth, use use);

static bool check_value(file *f, const unsigned char *value, uint64_t size, node_head node,
                        use use) {
  tree sub;
  if (use == FREE_PAGES) {
    return node.ksize == sizeof(uint64_t) ? check_free(f, value, size)
                                          : bad(f, "a list of free pages has no number");
  }
  if (node.flags != NODE_SUB) return true;
  if (use != DATABASES || size != sizeof sub) return bad(f, "a database is where none belongs");
  memcpy(&sub, value, sizeof sub);
  return check_tree(f, &sub, ITEMS);
}

/* The bytes of a value that lie in its node. */
static uint64_t size_inside(node_head node) {
  return node.flags == NODE_BIG ? sizeof(uint64_t) : node.lo | (uint64_t)node.hi << 16;
}

static bool check_leaf_node(file *f, const unsigned char *data, node_head node, use use) {
  uint64_t size = node.lo | (uint64_t)node.hi << 16, number;
  if (node.flags != NODE_BIG) return check_value(f, data, size, node, use);
  memcpy(&number, data, sizeof number);
  if (!check_overflow(f, number, size)) return false;
  return check_value(f, f->bytes + number * f->page + sizeof(page_head), size, node, use);
}

/* Whether a node lies in its page and is no larger than LMDB makes one; its bytes in *size. */
static bool measure_node(file *f, const unsigned char *page, size_t at, page_head head,
                         size_t *size) {
  node_head node;
  size_t most = (f->page - sizeof head) / 2 / 2 * 2 - sizeof(uint16_t);
  if (at % 2 != 0 || at + sizeof node > f->page) return bad(f, "a node lies outside its page");
  memcpy(&node, page + at, sizeof node);
  uint64_t bytes = sizeof node + node.ksize;
  if (node.ksize > MAX_KEY) return bad(f, "a key is too long");
  if (head.flags == PAGE_LEAF) {
    bytes += size_inside(node);
    if (node.flags > NODE_SUB || node.ksize == 0) return bad(f, "a node is of no known kind");
  }
  if (bytes > most || bytes > f->page - at) return bad(f, "a value is longer than its page");
  *size = ((size_t)bytes + 1) / 2 * 2;
  return true;
}

/* Whether the nodes of a page lie one behind the other up to its end, which LMDB relies on when it
 * moves them. Two cannot begin in the same 8 bytes. */
static bool check_places(file *f, const unsigned char *page, page_head head, size_t count) {
  uint16_t places[MAX_PAGE / 8], place;
  size_t at, size, found = 0;
  memset(places, 0, f->page / 8 * sizeof *places);
  for (size_t i = 0; i < count; i++) {
    memcpy(&place, page + sizeof head + i * 2, sizeof place);
    if (place >= f->page) return bad(f, "a node lies outside its page");
    places[place / 8] = place;
  }
  for (at = head.upper; at < f->page; at += size, found++) {
    if (places[at / 8] != at) return bad(f, "a page has a gap");
    if (!measure_node(f, page, at, head, &size)) return false;
  }
  return found == count || bad(f, "two nodes are in one place");
}

static bool check_node(file *f, const unsigned char *page, size_t at, page_head head, int depth,
                       use use) {
  node_head node;
  memcpy(&node, page + at, sizeof node);
  if (head.flags == PAGE_BRANCH) {
    uint64_t child = node.lo | (uint64_t)node.hi << 16 | (uint64_t)node.flags << 32;
    return check_page(f, child, depth - 1, use);
  }
  return check_leaf_node(f, page + at + sizeof node + node.ksize, node, use);
}

/* `depth`: levels from here to the leaves, this one included. */
static bool check_page(file *f, uint64_t number, int depth, use use) {
  if (!reach(f, number)) return false;
  const unsigned char *page = f->bytes + number * f->page;
  page_head head;
  memcpy(&head, page, sizeof head);
  int kind = depth > 1 ? PAGE_BRANCH : PAGE_LEAF;
  if (head.number != number || head.flags != kind || head.lower < sizeof head ||
      head.lower % 2 != 0 || head.lower > head.upper || head.upper > f->page) {
    return bad_page(f, number, "is not what leads to it says");
  }
  size_t count = (head.lower - sizeof head) / 2;
  if (count < (depth > 1 && use != FREE_PAGES ? 2 : 1)) {
    return bad_page(f, number, "is empty");
  }
  if (!check_places(f, page, head, count)) return false;
  for (size_t i = 0; i < count; i++) {
    uint16_t at;
    memcpy(&at, page + sizeof head + i * 2, sizeof at);
    if (!check_node(f, page, at, head, depth, use)) return false;
  }
  return true;
}

static bool check_tree(file *f, const tree *t, use use) {
  if (t->flags != (use == FREE_PAGES ? TREE_NUMBERS : 0))
    return bad(f, "a database is of a kind that weir has not");
  if (t->root == NO_PAGE) return t->entries == 0 || bad(f, "a database has lost its root");
  if (t->depth == 0 || t->depth > MAX_DEPTH) return bad(f, "a database is too deep");
  return check_page(f, t->root, t->depth, use);
}

static bool is_meta(const page_head *head, const meta *m) {
  return (head->flags & PAGE_META) != 0 && m->magic == MAGIC;
}

/* The newer of the two meta pages; false if the file has not got them. */
static bool find_meta(file *f, meta *newest) {
  page_head head;
  meta other;
  if (f->size < sizeof head + sizeof other) return bad(f, "it is too short");
  memcpy(&head, f->bytes, sizeof head);
  memcpy(newest, f->bytes + sizeof head, sizeof *newest);
  if (!is_meta(&head, newest)) return bad(f, "it is not a file of LMDB");
  if (newest->version != DATA_VERSION) return true;
  f->page = newest->trees[0].pad;
  if (f->page < 512 || f->page > MAX_PAGE || (f->page & (f->page - 1)) != 0) {
    return bad(f, "its pages have an impossible size");
  }
  f->pages = f->size / f->page;
  if (f->pages < 2) return bad(f, "it is too short");
  memcpy(&head, f->bytes + f->page, sizeof head);
  memcpy(&other, f->bytes + f->page + sizeof head, sizeof other);
  if (!is_meta(&head, &other)) return bad(f, "its second page is not one of LMDB");
  if (other.version != DATA_VERSION || other.trees[0].pad != f->page) {
    return bad(f, "its first pages contradict each other");
  }
  if (other.txn > newest->txn) *newest = other;
  f->last = newest->last_page;
  if (f->last < 1 || f->last >= f->pages * 2 + MORE_PAGES || newest->txn > MAX_TXN) {
    return bad(f, "its first pages have impossible numbers");
  }
  return true;
}

static int check(file *f) {
  meta newest = {0};
  if (!find_meta(f, &newest)) return MDB_CORRUPTED;
  if (newest.version != DATA_VERSION) return 0;
  f->seen = calloc(1, (size_t)(f->last / 8 + 1));
  if (f->seen == NULL) return ENOMEM;
  bool good =
      check_tree(f, &newest.trees[0], FREE_PAGES) && check_tree(f, &newest.trees[1], DATABASES);
  free(f->seen);
  return good ? 0 : MDB_CORRUPTED;
}

int weir_lmdb_verify(const char *path, char *why, size_t size) {
  if (size > 0) why[0] = '\0';
  if (sizeof(size_t) != sizeof(uint64_t)) return 0; /* other sizes in the file */
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? 0 : errno;
  struct stat st;
  int error = fstat(fd, &st) == 0 ? 0 : errno;
  void *map = MAP_FAILED;
  if (error == 0 && st.st_size > 0) {
    map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) error = errno;
  }
  close(fd);
  if (map == MAP_FAILED) return error;
  file f = {.bytes = map, .size = (size_t)st.st_size, .why = why, .why_size = size};
  error = check(&f);
  munmap(map, (size_t)st.st_size);
  return error;
}
