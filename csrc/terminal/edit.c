/*
 * weir.edit: a line editor on a terminal that never waits, on libedit (its own interface,
 * histedit.h).
 *
 * Whoever owns the terminal's descriptor watches it, reads it, and feeds the editor; so a loop goes
 * on while somebody types. libedit reads whole keys and would wait for the rest of one: the editor
 * holds back a key sequence or a UTF-8 character until all of it is there.
 *
 *   edit.open(complete) -> editor | nil, message   on the descriptors 0 and 1
 *       complete(line, bytes before the cursor) -> text to insert, or nil
 *   editor:prompt(text)      begins a line: raw mode, shows the prompt
 *   editor:feed(bytes)       -> "line", text | "eof" | nil (it goes on); a line is ended then
 *   editor:stop()            ends the line without a result: cooked mode
 *   editor:hide()            takes prompt and line off the screen, the cursor where the prompt was
 *   editor:show()            draws them again, at the cursor
 *   editor:line()            -> what was typed so far
 *   editor:remember(text)    puts a line into the history, which holds HISTORY lines
 *   editor:resize()          the terminal has another size
 *   editor:resume()          the process was stopped and goes on
 *   editor:width()           -> columns
 *   editor:close()           restores the terminal; collecting the editor does the same
 *
 * The interrupt (Ctrl-C) stays with the program: no mode of the editor hides it.
 *
 *   edit.watch_interrupt()   -> a descriptor that becomes readable with each SIGINT
 *   edit.interrupted([clear])-> whether one came since the last call with `clear`
 *   edit.unwatch_interrupt() SIGINT does again what it did
 */
/* wcwidth is XSI's. */
#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#include "lua/compat.h"

#define EDITOR "weir.edit"
#define HISTORY 1000      /* lines */
#define MAX_PENDING 65536 /* bytes that were fed and not seen to */
#define MAX_SEQUENCE 32   /* bytes of a key; longer is none */
#define MAX_PROMPT 256    /* characters */

typedef struct editor {
  EditLine *el;
  History *history;
  FILE *in, *out, *err;
  lua_State *L; /* of the running call into libedit */
  int complete; /* reference */
  int failed;   /* the completion raised; its error is on L's stack */
  int started;  /* a line is being typed */
  wchar_t prompt[MAX_PROMPT + 1];
  wchar_t unit[MAX_SEQUENCE]; /* the key that libedit reads */
  int unit_first, unit_count;
  unsigned char pending[MAX_PENDING];
  size_t pending_count;
} editor;

static editor *check(lua_State *L) {
  editor *ed = luaL_checkudata(L, 1, EDITOR);
  luaL_argcheck(L, ed->el != NULL, 1, "the editor is closed");
  return ed;
}

/* --- UTF-8 ------------------------------------------------------------------------------------ */

static size_t expected_length(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return 2;
  if (first >= 0xE0 && first <= 0xEF) return 3;
  if (first >= 0xF0 && first <= 0xF4) return 4;
  return 0;
}

/* One character of `count` bytes. How many bytes it takes, 0 if more are needed; what is no UTF-8
 * becomes U+FFFD, byte by byte. */
static size_t decode(const unsigned char *bytes, size_t count, wchar_t *out) {
  static const wchar_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
  const size_t length = expected_length(bytes[0]);
  *out = 0xFFFD;
  if (length == 0) return 1;
  wchar_t value = length == 1 ? bytes[0] : bytes[0] & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; i++) {
    if (i == count) return 0;
    if ((bytes[i] & 0xC0) != 0x80) return 1;
    value = (value << 6) | (bytes[i] & 0x3F);
  }
  if (value < LEAST[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return 1;
  *out = value;
  return length;
}

static void add_utf8(luaL_Buffer *buffer, wchar_t wide) {
  const unsigned long c = (unsigned long)wide;
  if (c < 0x80) {
    luaL_addchar(buffer, (char)c);
    return;
  }
  const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  static const unsigned char LEAD[] = {0, 0xC0, 0xE0, 0xF0};
  luaL_addchar(buffer, (char)(LEAD[more] | (c >> (6 * more))));
  for (int i = more - 1; i >= 0; i--) {
    luaL_addchar(buffer, (char)(0x80 | ((c >> (6 * i)) & 0x3F)));
  }
}

static void push_wide(lua_State *L, const wchar_t *text, size_t count) {
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  for (size_t i = 0; i < count; i++)
    add_utf8(&buffer, text[i]);
  luaL_pushresult(&buffer);
}

/* A copy for the caller to free; NULL without memory. `max` is the most characters. */
static wchar_t *widen(const char *text, size_t len, size_t max) {
  wchar_t *wide = malloc(((len < max ? len : max) + 1) * sizeof *wide);
  if (wide == NULL) return NULL;
  size_t count = 0;
  for (size_t at = 0; at < len && count < max;) {
    size_t used = decode((const unsigned char *)text + at, len - at, &wide[count]);
    if (used == 0) used = 1;
    if (wide[count] == 0) wide[count] = 0xFFFD;
    at += used;
    count++;
  }
  wide[count] = L'\0';
  return wide;
}

/* --- keys ------------------------------------------------------------------------------------- */

#define ESC 0x1B

/* Bytes of the escape sequence that pending begins with; 0 if more are needed. */
static size_t sequence_length(const unsigned char *bytes, size_t count) {
  if (count < 2) return 0;
  if (bytes[1] == 'O') return count < 3 ? 0 : 3;
  if (bytes[1] != '[') return bytes[1] < 0x80 ? 2 : 1;
  for (size_t i = 2; i < count && i < MAX_SEQUENCE; i++) {
    if (bytes[i] >= 0x40 && bytes[i] <= 0x7E) return i + 1;
  }
  return count >= MAX_SEQUENCE ? 1 : 0;
}

static void drop_pending(editor *ed, size_t count) {
  ed->pending_count -= count;
  memmove(ed->pending, ed->pending + count, ed->pending_count);
}

/* Moves the next key from the bytes to `unit`; with `now` also one that may be incomplete. Whether
 * there is one. */
static int next_unit(editor *ed, int now) {
  const unsigned char *bytes = ed->pending;
  const size_t count = ed->pending_count;
  ed->unit_first = ed->unit_count = 0;
  if (count == 0) return 0;
  if (bytes[0] == ESC && !now) {
    const size_t length = sequence_length(bytes, count);
    for (size_t i = 0; i < length; i++)
      ed->unit[ed->unit_count++] = bytes[i];
    drop_pending(ed, length);
    return length > 0;
  }
  size_t at = 0;
  /* ^V and ^X ask for another character. */
  if ((bytes[0] == 0x16 || bytes[0] == 0x18) && !now) {
    if (count < 2) return 0;
    ed->unit[ed->unit_count++] = bytes[at++];
  }
  wchar_t wide;
  size_t used = decode(bytes + at, count - at, &wide);
  if (used == 0 && !now) {
    ed->unit_count = 0;
    return 0;
  }
  ed->unit[ed->unit_count++] = wide;
  drop_pending(ed, at + (used > 0 ? used : 1));
  return 1;
}

/* libedit's only source of characters. It asks for more than a key only in modes that a user's own
 * .editrc sets; then this waits for the terminal. */
static int get_character(EditLine *el, wchar_t *out) {
  editor *ed = NULL;
  el_get(el, EL_CLIENTDATA, &ed);
  while (ed->unit_first == ed->unit_count && !next_unit(ed, 1)) {
    struct pollfd source = {.fd = fileno(ed->in), .events = POLLIN};
    if (poll(&source, 1, -1) < 0) return 0;
    ssize_t got = read(fileno(ed->in), ed->pending, sizeof ed->pending);
    if (got <= 0) return 0;
    ed->pending_count = (size_t)got;
  }
  *out = ed->unit[ed->unit_first++];
  return 1;
}

/* --- the screen ------------------------------------------------------------------------------- */

static int columns_of(const editor *ed) {
  struct winsize size;
  if (ioctl(fileno(ed->out), TIOCGWINSZ, &size) == 0 && size.ws_col > 1) return size.ws_col;
  return 80;
}

/* The row, seen from that of the prompt, in which the cursor is. libedit shows control characters
 * in two columns, and does not split wide ones. */
static int cursor_row(const editor *ed) {
  const int columns = columns_of(ed);
  const LineInfoW *info = el_wline(ed->el);
  int row = 0, column = 0;
  const wchar_t *parts[] = {ed->prompt, ed->prompt + wcslen(ed->prompt), info->buffer,
                            info->cursor};
  for (int part = 0; part < 4; part += 2) {
    for (const wchar_t *at = parts[part]; at < parts[part + 1]; at++) {
      int width = wcwidth(*at);
      if (width < 0) width = 2;
      if (column + width > columns) row++, column = 0;
      column += width;
    }
  }
  return column >= columns ? row + 1 : row;
}

static int edit_hide(lua_State *L) {
  editor *ed = check(L);
  if (!ed->started) return 0;
  const int row = cursor_row(ed);
  fputc('\r', ed->out);
  if (row > 0) fprintf(ed->out, "\033[%dA", row);
  fputs("\033[J", ed->out);
  fflush(ed->out);
  return 0;
}

static int edit_show(lua_State *L) {
  editor *ed = check(L);
  if (ed->started) el_set(ed->el, EL_REFRESH);
  return 0;
}

/* The process was stopped and goes on: somebody else had the terminal. */
static int edit_resume(lua_State *L) {
  editor *ed = check(L);
  if (ed->started) {
    el_set(ed->el, EL_PREP_TERM, 1);
    el_set(ed->el, EL_REFRESH);
  }
  return 0;
}

static int edit_resize(lua_State *L) {
  editor *ed = check(L);
  el_resize(ed->el);
  return 0;
}

static int edit_width(lua_State *L) {
  lua_pushinteger(L, columns_of(check(L)));
  return 1;
}

/* --- completion ------------------------------------------------------------------------------- */

static unsigned char complete(EditLine *el, int key) {
  (void)key;
  editor *ed = NULL;
  el_get(el, EL_CLIENTDATA, &ed);
  lua_State *L = ed->L;
  const LineInfoW *info = el_wline(el);
  if (ed->failed || !lua_checkstack(L, 8)) return CC_ERROR;
  lua_rawgeti(L, LUA_REGISTRYINDEX, ed->complete);
  push_wide(L, info->buffer, (size_t)(info->lastchar - info->buffer));
  push_wide(L, info->buffer, (size_t)(info->cursor - info->buffer));
  lua_pushinteger(L, (lua_Integer)lua_rawlen(L, -1));
  lua_remove(L, -2);
  if (lua_pcall(L, 2, 1, 0) != 0) {
    ed->failed = 1;
    return CC_ERROR;
  }
  size_t len = 0;
  const char *text = lua_tolstring(L, -1, &len);
  wchar_t *wide = text != NULL ? widen(text, len, len) : NULL;
  const int inserted = wide != NULL && wide[0] != L'\0' && el_winsertstr(el, wide) == 0;
  const int beeps = text == NULL;
  free(wide);
  lua_pop(L, 1);
  return inserted ? CC_REFRESH : beeps ? CC_ERROR : CC_NORM;
}

/* --- lines ------------------------------------------------------------------------------------ */

static wchar_t *prompt_of(EditLine *el) {
  editor *ed = NULL;
  el_get(el, EL_CLIENTDATA, &ed);
  return ed->prompt;
}

static void leave(editor *ed) {
  if (ed->started) {
    ed->started = 0;
    el_set(ed->el, EL_UNBUFFERED, 0);
  }
}

static int edit_prompt(lua_State *L) {
  editor *ed = check(L);
  size_t len;
  const char *text = luaL_checklstring(L, 2, &len);
  wchar_t *wide = widen(text, len, MAX_PROMPT);
  if (wide == NULL) return luaL_error(L, "out of memory");
  wcscpy(ed->prompt, wide);
  free(wide);
  leave(ed);
  ed->started = 1;
  el_set(ed->el, EL_UNBUFFERED, 1);
  return 0;
}

/* Lets libedit see one key. "line" and its text, "eof", or nothing while the line goes on. */
static int step(lua_State *L, editor *ed) {
  int count = 0;
  ed->L = L;
  const wchar_t *text = el_wgets(ed->el, &count);
  ed->L = NULL;
  if (ed->failed) {
    ed->failed = 0;
    return lua_error(L);
  }
  if (text == NULL || count <= 0) return 0;
  if (text[count - 1] == L'\n' || text[count - 1] == L'\r') {
    lua_pushliteral(L, "line");
    push_wide(L, text, (size_t)count - 1);
    leave(ed);
    return 2;
  }
  if (count == 1 && text[0] == 4) { /* what libedit leaves for Ctrl-D on an empty line */
    lua_pushliteral(L, "eof");
    leave(ed);
    return 1;
  }
  return 0;
}

static int edit_feed(lua_State *L) {
  editor *ed = check(L);
  size_t len;
  const char *bytes = luaL_checklstring(L, 2, &len);
  luaL_argcheck(L, len <= MAX_PENDING - ed->pending_count, 2, "more bytes than are held");
  memcpy(ed->pending + ed->pending_count, bytes, len);
  ed->pending_count += len;
  while (ed->started && (ed->unit_first < ed->unit_count || next_unit(ed, 0))) {
    const int results = step(L, ed);
    if (results > 0) return results;
  }
  return 0;
}

static int edit_stop(lua_State *L) {
  editor *ed = check(L);
  ed->pending_count = 0;
  ed->unit_first = ed->unit_count = 0;
  leave(ed);
  return 0;
}

static int edit_line(lua_State *L) {
  editor *ed = check(L);
  const LineInfoW *info = el_wline(ed->el);
  push_wide(L, info->buffer, ed->started ? (size_t)(info->lastchar - info->buffer) : 0);
  return 1;
}

static int edit_remember(lua_State *L) {
  editor *ed = check(L);
  HistEvent event;
  history(ed->history, &event, H_ENTER, luaL_checkstring(L, 2));
  return 0;
}

/* --- opening and closing ---------------------------------------------------------------------- */

/* A terminal is the process's, so what must be restored at its end is, too. */
static struct termios original;
static pid_t original_of; /* 0: nothing to restore */

static void restore_terminal(void) {
  if (original_of == getpid()) tcsetattr(STDIN_FILENO, TCSADRAIN, &original);
}

static void remember_terminal(void) {
  static int registered;
  if (tcgetattr(STDIN_FILENO, &original) != 0) return;
  if (!registered) registered = atexit(restore_terminal) == 0;
  original_of = getpid();
}

static void close_files(editor *ed) {
  FILE *files[] = {ed->in, ed->out, ed->err};
  for (int i = 0; i < 3; i++) {
    if (files[i] != NULL) fclose(files[i]);
  }
  ed->in = ed->out = ed->err = NULL;
}

static int edit_close(lua_State *L) {
  editor *ed = luaL_checkudata(L, 1, EDITOR);
  if (ed->el != NULL) {
    leave(ed);
    el_end(ed->el);
    history_end(ed->history);
    ed->el = NULL;
    original_of = 0;
    luaL_unref(L, LUA_REGISTRYINDEX, ed->complete);
  }
  close_files(ed);
  return 0;
}

static FILE *open_copy(int fd, const char *mode) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  FILE *file = copy >= 0 ? fdopen(copy, mode) : NULL;
  if (file == NULL && copy >= 0) close(copy);
  return file;
}

/* libedit shows characters as the locale says, so that must be one that has them. */
static void choose_locale(void) {
  setlocale(LC_CTYPE, "");
  if (MB_CUR_MAX < 4) setlocale(LC_CTYPE, "C.UTF-8");
}

static void configure(editor *ed) {
  HistEvent event;
  history(ed->history, &event, H_SETSIZE, HISTORY);
  history(ed->history, &event, H_SETUNIQUE, 1);
  el_set(ed->el, EL_CLIENTDATA, ed);
  el_set(ed->el, EL_SIGNAL, 0);
  el_wset(ed->el, EL_PROMPT, prompt_of);
  el_set(ed->el, EL_HIST, history, ed->history);
  el_set(ed->el, EL_EDITOR, "emacs");
  el_set(ed->el, EL_ADDFN, "weir-complete", "Complete a name", complete);
  el_set(ed->el, EL_BIND, "^I", "weir-complete", NULL);
  /* The incremental search would wait for keys. */
  el_set(ed->el, EL_BIND, "^R", "ed-search-prev-history", NULL);
  el_set(ed->el, EL_BIND, "^S", "ed-search-next-history", NULL);
  el_set(ed->el, EL_BIND, "\\e[1~", "ed-move-to-beg", NULL);
  el_set(ed->el, EL_BIND, "\\e[4~", "ed-move-to-end", NULL);
  el_set(ed->el, EL_BIND, "\\e[H", "ed-move-to-beg", NULL);
  el_set(ed->el, EL_BIND, "\\e[F", "ed-move-to-end", NULL);
  el_set(ed->el, EL_BIND, "\\e[3~", "ed-delete-next-char", NULL);
  el_set(ed->el, EL_BIND, "\\e[1;5C", "em-next-word", NULL);
  el_set(ed->el, EL_BIND, "\\e[1;5D", "ed-prev-word", NULL);
  el_source(ed->el, NULL);
  el_wset(ed->el, EL_GETCFN, get_character);
}

static int edit_open(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  editor *ed = lua_newuserdata(L, sizeof *ed);
  memset(ed, 0, sizeof *ed);
  luaL_setmetatable(L, EDITOR);
  choose_locale();
  remember_terminal();
  ed->in = open_copy(0, "r");
  ed->out = open_copy(1, "w");
  ed->err = open_copy(2, "w");
  if (ed->in != NULL && ed->out != NULL && ed->err != NULL) {
    ed->history = history_init();
    ed->el = ed->history != NULL ? el_init("weir", ed->in, ed->out, ed->err) : NULL;
  }
  if (ed->el == NULL) {
    if (ed->history != NULL) history_end(ed->history);
    close_files(ed);
    lua_pushnil(L);
    lua_pushliteral(L, "the terminal cannot be opened for editing");
    return 2;
  }
  lua_pushvalue(L, 1);
  ed->complete = luaL_ref(L, LUA_REGISTRYINDEX);
  configure(ed);
  return 1;
}

/* --- the interrupt ---------------------------------------------------------------------------- */

/* A signal is the process's, so this state is, too. */
static volatile sig_atomic_t interrupts;
static int interrupt_pipe[2] = {-1, -1};
static struct sigaction former;

static void on_interrupt(int number) {
  (void)number;
  const int saved = errno;
  interrupts = 1;
  const ssize_t ignored = write(interrupt_pipe[1], "c", 1); /* full: one is enough */
  (void)ignored;
  errno = saved;
}

static int watch_interrupt(lua_State *L) {
  if (interrupt_pipe[0] < 0) {
    if (pipe(interrupt_pipe) != 0) return luaL_error(L, "no pipe: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
      fcntl(interrupt_pipe[i], F_SETFD, FD_CLOEXEC);
      fcntl(interrupt_pipe[i], F_SETFL, O_NONBLOCK);
    }
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = SA_RESTART;
    sigaction(SIGINT, &action, &former);
  }
  lua_pushinteger(L, interrupt_pipe[0]);
  return 1;
}

static int interrupted(lua_State *L) {
  const int clear = lua_toboolean(L, 1);
  lua_pushboolean(L, interrupts != 0);
  if (clear) {
    char bytes[64];
    interrupts = 0;
    while (interrupt_pipe[0] >= 0 && read(interrupt_pipe[0], bytes, sizeof bytes) > 0)
      continue;
  }
  return 1;
}

static int unwatch_interrupt(lua_State *L) {
  (void)L;
  if (interrupt_pipe[0] < 0) return 0;
  sigaction(SIGINT, &former, NULL);
  close(interrupt_pipe[0]);
  close(interrupt_pipe[1]);
  interrupt_pipe[0] = interrupt_pipe[1] = -1;
  return 0;
}

int luaopen_weir_edit(lua_State *L);

int luaopen_weir_edit(lua_State *L) {
  static const luaL_Reg METHODS[] = {
      {"prompt", edit_prompt},     {"feed", edit_feed},     {"stop", edit_stop},
      {"hide", edit_hide},         {"show", edit_show},     {"line", edit_line},
      {"remember", edit_remember}, {"resize", edit_resize}, {"width", edit_width},
      {"resume", edit_resume},     {"close", edit_close},   {NULL, NULL},
  };
  static const luaL_Reg META[] = {{"__gc", edit_close}, {NULL, NULL}};
  static const luaL_Reg FUNCTIONS[] = {
      {"open", edit_open},
      {"watch_interrupt", watch_interrupt},
      {"interrupted", interrupted},
      {"unwatch_interrupt", unwatch_interrupt},
      {NULL, NULL},
  };
  weir_lua_new_class(L, EDITOR, METHODS, META);
  lua_newtable(L);
  luaL_setfuncs(L, FUNCTIONS, 0);
  return 1;
}
