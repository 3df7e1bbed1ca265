/*
 * weir.edit: a line editor on a terminal that never waits, on libedit (its own interface,
 * histedit.h).
 *
 * Whoever owns the terminal's descriptor watches it, reads it, and feeds the editor; so a loop goes
 * on while somebody types. Pasted text (terminal/keys.h) is put into the line as it is: nothing in
 * it is a command but the ends of its lines.
 *
 *   edit.open(complete) -> editor | nil, message   on the descriptors 0 and 1
 *       complete(line, bytes before the cursor) -> text to insert, or nil
 *   editor:prompt(text)      begins a line: raw mode, shows the prompt
 *   editor:feed(bytes)       -> "line", text | "eof" | nil (it goes on); a line is ended then
 *   editor:stop()            ends the line without a result: cooked mode, the cursor at its end
 *   editor:hide()            takes prompt and line off the screen, the cursor where the prompt was
 *   editor:show()            draws them again, at the cursor, for the size that the terminal has
 *   editor:line()            -> what was typed so far
 *   editor:remember(text)    puts a line into the history, which holds HISTORY lines
 *   editor:suspend()         stops the process, the terminal as others want it, until it goes on
 *   editor:resume()          the process went on: somebody else had the terminal
 *   editor:width()           -> columns
 *   editor:close()           restores the terminal; collecting the editor does the same
 *
 * While a line is typed, SIGTSTP is for the program to see, which answers with suspend().
 *
 *   edit.watch_signals(interrupt), edit.next_signal(), edit.unwatch_signals(): terminal/signals.h
 */
/* wcwidth is XSI's. */
#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

#include "lua/compat.h"
#include "terminal/keys.h"
#include "terminal/signals.h"

#define EDITOR "weir.edit"
#define HISTORY 1000   /* lines */
#define MAX_PROMPT 256 /* characters */
#define TAB_STOP 8     /* columns between two of libedit's */
#define WIDEST 8       /* columns of a character, as libedit draws it */
#define QUOTE 0x16     /* ^V: the next key is a character */
#define PREFIX 0x18    /* ^X: what follows it has no meaning unless it is a control character */

/* Text that is pasted comes between marks (terminal/keys.h). */
#define MARK_PASTES "\033[?2004h"
#define MARK_NO_PASTES "\033[?2004l"
/* The key to which libedit is told that pasted text is there. */
#define PASTE_KEY L"\033[200~"

typedef struct editor {
  EditLine *el;
  History *history;
  FILE *in, *out, *err;
  lua_State *L; /* of the running call into libedit */
  int complete; /* reference */
  int failed;   /* the completion raised; its error is on L's stack */
  int started;  /* a line is being typed */
  int redrawn;  /* suspend() has done what resume() would do */
  int vi;       /* keys may be commands of vi */
  wchar_t prompt[MAX_PROMPT + 1];
  weir_keys keys;
  const wchar_t *unit; /* what libedit reads: the characters of a key */
  size_t unit_left;
} editor;

static editor *check(lua_State *L) {
  editor *ed = luaL_checkudata(L, 1, EDITOR);
  luaL_argcheck(L, ed->el != NULL, 1, "the editor is closed");
  return ed;
}

/* --- UTF-8 ------------------------------------------------------------------------------------ */

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
    size_t used = weir_keys_decode((const unsigned char *)text + at, len - at, &wide[count]);
    if (used == 0) used = 1;
    if (wide[count] == 0) wide[count] = 0xFFFD;
    at += used;
    count++;
  }
  wide[count] = L'\0';
  return wide;
}

/* --- places on the screen --------------------------------------------------------------------- */

/* A place on the screen, seen from the beginning of the prompt. */
typedef struct place {
  int row, column;
} place;

static int columns_of(const editor *ed) {
  struct winsize size;
  if (ioctl(fileno(ed->out), TIOCGWINSZ, &size) == 0 && size.ws_col > 1) return size.ws_col;
  return 80;
}

static void advance(place *at, int width, int columns) {
  if (at->column + width > columns) at->row++, at->column = 0;
  at->column += width;
}

/* Goes over a character as libedit draws it: control characters as ^X, what cannot be printed as
 * \U+ and its number, wide ones not split, and none narrower than a column. */
static void advance_over(place *at, wchar_t c, int columns) {
  if (c == L'\t') {
    do
      advance(at, 1, columns);
    while (at->column % TAB_STOP != 0 && at->column < columns);
    return;
  }
  const int width = wcwidth(c);
  if (iswprint((wint_t)c)) {
    advance(at, width > 0 ? width : 1, columns);
    return;
  }
  for (int left = c < 0x100 ? 2 : c > 0xFFFF ? 8 : 7; left > 0; left--)
    advance(at, 1, columns);
}

/* Where the character `end` of the line is. */
static place place_of(const editor *ed, const wchar_t *end) {
  const int columns = columns_of(ed);
  place at = {0, 0};
  for (const wchar_t *c = ed->prompt; *c != L'\0'; c++)
    advance_over(&at, *c, columns);
  for (const wchar_t *c = el_wline(ed->el)->buffer; c < end; c++)
    advance_over(&at, *c, columns);
  if (at.column >= columns) at.row++, at.column = 0;
  return at;
}

/* --- keys ------------------------------------------------------------------------------------- */

/* Whether a key does nothing but insert a character, which the keys' unit is then. */
static int is_character(editor *ed) {
  weir_keys *keys = &ed->keys;
  const int prefixed = keys->unit_count == 2 && keys->unit[0] == PREFIX && keys->unit[1] >= L' ';
  if (prefixed || (keys->unit_count == 2 && keys->unit[0] == QUOTE)) {
    keys->unit[0] = keys->unit[1];
    keys->unit_count = 1;
    return 1;
  }
  return keys->unit_count == 1 && (keys->unit[0] > 0xFF || iswprint((wint_t)keys->unit[0]));
}

/* Whether the line may be as high as the screen. */
static int fills_screen(const editor *ed) {
  const LineInfoW *info = el_wline(ed->el);
  int rows = 0;
  el_get(ed->el, EL_GETTC, "li", &rows, NULL);
  const long most = WIDEST * (info->lastchar - info->buffer + 1) + MAX_PROMPT;
  if (most < (long)columns_of(ed) * (rows - 1)) return 0;
  return place_of(ed, info->lastchar).row + 2 >= rows;
}

/* Makes the next key what libedit reads; with `now` also one that may be incomplete. Where the line
 * fills the screen, characters are inserted as pasted ones are: libedit 3.1 draws one that is typed
 * at the end of a line in a way of its own, and crashes where that scrolls. */
static int next_unit(editor *ed, int now) {
  const weir_keys_kind kind = weir_keys_next(&ed->keys, now);
  const int inserts = kind == WEIR_KEYS_TEXT ||
                      (kind == WEIR_KEYS_KEY && !ed->vi && fills_screen(ed) && is_character(ed));
  ed->unit = inserts ? PASTE_KEY : ed->keys.unit;
  ed->unit_left = inserts ? wcslen(PASTE_KEY) : ed->keys.unit_count;
  return kind != WEIR_KEYS_MORE;
}

/* libedit's only source of characters. It asks for more than a key only in modes that a user's own
 * .editrc sets; then this waits for the terminal. */
static int get_character(EditLine *el, wchar_t *out) {
  editor *ed = NULL;
  el_get(el, EL_CLIENTDATA, &ed);
  while (ed->unit_left == 0 && !next_unit(ed, 1)) {
    char bytes[64];
    struct pollfd source = {.fd = fileno(ed->in), .events = POLLIN};
    if (poll(&source, 1, -1) < 0) return 0;
    const ssize_t got = read(fileno(ed->in), bytes, sizeof bytes);
    if (got <= 0 || (size_t)got > weir_keys_room(&ed->keys)) return 0;
    weir_keys_feed(&ed->keys, bytes, (size_t)got);
  }
  *out = *ed->unit++;
  ed->unit_left--;
  return 1;
}

/* Bound to PASTE_KEY: the text is in the keys' unit. */
static unsigned char insert_pasted(EditLine *el, int key) {
  (void)key;
  editor *ed = NULL;
  el_get(el, EL_CLIENTDATA, &ed);
  wchar_t text[WEIR_KEYS_UNIT + 1];
  wmemcpy(text, ed->keys.unit, ed->keys.unit_count);
  text[ed->keys.unit_count] = L'\0';
  return el_winsertstr(el, text) == 0 ? CC_REFRESH : CC_ERROR;
}

/* --- the screen ------------------------------------------------------------------------------- */

/* Puts the cursor where the line ends. */
static void go_to_end(const editor *ed) {
  const LineInfoW *info = el_wline(ed->el);
  const int row = place_of(ed, info->cursor).row;
  const place end = place_of(ed, info->lastchar);
  fputc('\r', ed->out);
  if (end.row > row) fprintf(ed->out, "\033[%dB", end.row - row);
  if (end.column > 0) fprintf(ed->out, "\033[%dC", end.column);
  fflush(ed->out);
}

static int edit_hide(lua_State *L) {
  editor *ed = check(L);
  if (!ed->started) return 0;
  const int row = place_of(ed, el_wline(ed->el)->cursor).row;
  fputc('\r', ed->out);
  if (row > 0) fprintf(ed->out, "\033[%dA", row);
  fputs("\033[J", ed->out);
  fflush(ed->out);
  return 0;
}

static int edit_show(lua_State *L) {
  editor *ed = check(L);
  if (ed->started) {
    el_resize(ed->el);
    el_set(ed->el, EL_REFRESH);
  }
  return 0;
}

static int edit_width(lua_State *L) {
  lua_pushinteger(L, columns_of(check(L)));
  return 1;
}

/* --- the terminal's mode ---------------------------------------------------------------------- */

/* A line begins: keys come one by one. */
static void enter(editor *ed) {
  ed->started = 1;
  ed->redrawn = 0;
  weir_signals_stop_softly(1);
  fputs(MARK_PASTES, ed->out);
  el_set(ed->el, EL_UNBUFFERED, 1);
}

/* A line has ended: the terminal is as it was. */
static void leave(editor *ed) {
  if (ed->started) {
    ed->started = 0;
    el_set(ed->el, EL_UNBUFFERED, 0);
    fputs(MARK_NO_PASTES, ed->out);
    fflush(ed->out);
    weir_signals_stop_softly(0);
  }
}

/* Somebody else had the terminal. libedit believes that it is as it left it. */
static void redraw(editor *ed) {
  el_set(ed->el, EL_PREP_TERM, 0);
  el_set(ed->el, EL_PREP_TERM, 1);
  fputs(MARK_PASTES "\r", ed->out);
  el_resize(ed->el);
  el_set(ed->el, EL_REFRESH);
}

static int edit_suspend(lua_State *L) {
  editor *ed = check(L);
  if (!ed->started) return 0;
  go_to_end(ed);
  el_set(ed->el, EL_PREP_TERM, 0);
  fputs(MARK_NO_PASTES, ed->out);
  fflush(ed->out);
  weir_signals_stop();
  redraw(ed);
  ed->redrawn = 1;
  return 0;
}

static int edit_resume(lua_State *L) {
  editor *ed = check(L);
  if (ed->started && !ed->redrawn) redraw(ed);
  ed->redrawn = 0;
  return 0;
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

static int edit_prompt(lua_State *L) {
  editor *ed = check(L);
  size_t len;
  const char *text = luaL_checklstring(L, 2, &len);
  wchar_t *wide = widen(text, len, MAX_PROMPT);
  if (wide == NULL) return luaL_error(L, "out of memory");
  wcscpy(ed->prompt, wide);
  free(wide);
  leave(ed);
  enter(ed);
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
  luaL_argcheck(L, len <= weir_keys_room(&ed->keys), 2, "more bytes than are held");
  weir_keys_feed(&ed->keys, bytes, len);
  while (ed->started && (ed->unit_left > 0 || next_unit(ed, 0))) {
    const int results = step(L, ed);
    if (!ed->vi) ed->unit_left = 0; /* the rest of a key that means nothing */
    if (results > 0) return results;
  }
  return 0;
}

static int edit_stop(lua_State *L) {
  editor *ed = check(L);
  weir_keys_reset(&ed->keys);
  ed->unit_left = 0;
  if (ed->started) go_to_end(ed);
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
    weir_signals_before_death(NULL);
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
  el_set(ed->el, EL_ADDFN, "weir-paste", "Insert pasted text", insert_pasted);
  /* The incremental search and libedit's own commands would wait for keys. */
  el_set(ed->el, EL_BIND, "^R", "ed-search-prev-history", NULL);
  el_set(ed->el, EL_BIND, "^S", "ed-search-next-history", NULL);
  el_set(ed->el, EL_BIND, "\\ex", "ed-unassigned", NULL);
  el_set(ed->el, EL_BIND, "\\eX", "ed-unassigned", NULL);
  el_set(ed->el, EL_BIND, "\\e[1~", "ed-move-to-beg", NULL);
  el_set(ed->el, EL_BIND, "\\e[4~", "ed-move-to-end", NULL);
  el_set(ed->el, EL_BIND, "\\e[H", "ed-move-to-beg", NULL);
  el_set(ed->el, EL_BIND, "\\e[F", "ed-move-to-end", NULL);
  el_set(ed->el, EL_BIND, "\\e[3~", "ed-delete-next-char", NULL);
  el_set(ed->el, EL_BIND, "\\e[1;5C", "em-next-word", NULL);
  el_set(ed->el, EL_BIND, "\\e[1;5D", "ed-prev-word", NULL);
  el_source(ed->el, NULL);
  const char *mode = NULL;
  el_get(ed->el, EL_EDITOR, &mode);
  ed->vi = mode != NULL && strcmp(mode, "vi") == 0;
  /* ^S and ^Q are keys. */
  el_set(ed->el, EL_SETTY, "-d", "-ixon", NULL);
  /* What is ours in every mode that a .editrc may choose. */
  el_set(ed->el, EL_BIND, "^I", "weir-complete", NULL);
  el_set(ed->el, EL_BIND, "\\e[200~", "weir-paste", NULL);
  el_set(ed->el, EL_BIND, "-a", "\\e[200~", "weir-paste", NULL);
  el_wset(ed->el, EL_GETCFN, get_character);
}

static int edit_open(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  editor *ed = lua_newuserdata(L, sizeof *ed);
  memset(ed, 0, sizeof *ed);
  luaL_setmetatable(L, EDITOR);
  choose_locale();
  remember_terminal();
  weir_signals_before_death(restore_terminal);
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

/* --- the module ------------------------------------------------------------------------------- */

int luaopen_weir_edit(lua_State *L);

int luaopen_weir_edit(lua_State *L) {
  static const luaL_Reg METHODS[] = {
      {"prompt", edit_prompt},     {"feed", edit_feed},   {"stop", edit_stop},
      {"hide", edit_hide},         {"show", edit_show},   {"line", edit_line},
      {"remember", edit_remember}, {"width", edit_width}, {"suspend", edit_suspend},
      {"resume", edit_resume},     {"close", edit_close}, {NULL, NULL},
  };
  static const luaL_Reg META[] = {{"__gc", edit_close}, {NULL, NULL}};
  static const luaL_Reg FUNCTIONS[] = {
      {"open", edit_open},
      {"watch_signals", weir_signals_watch},
      {"next_signal", weir_signals_next},
      {"unwatch_signals", weir_signals_unwatch},
      {NULL, NULL},
  };
  weir_lua_new_class(L, EDITOR, METHODS, META);
  lua_newtable(L);
  luaL_setfuncs(L, FUNCTIONS, 0);
  return 1;
}
