"""Runs a program in a pseudo-terminal and plays a scenario: python3 spec/terminal.py SCENARIO.json

The scenario is an object: "words" (the program), "env", "rows", "columns", "seconds" (for each wait), and "steps", a
list of

  ["expect", TEXT]            waits until TEXT is written, after what was expected before
  ["screen", ROWS]            waits until these are the last rows of the screen that are not empty
  ["send", TEXT]              types TEXT; ["bytes", HEX] types bytes
  ["until", PATH]             reads nothing until there is a file of that name
  ["resize", ROWS, COLUMNS]   the terminal has another size
  ["signal", NAME]            sends a signal to the program
  ["idle", SECONDS]           for as long the program must not run at all (where /proc tells)
  ["quit"]                    waits until the program has ended
  ["wait"]                    the same, and reads nothing meanwhile

It writes an object: "output", "status" (128 and the number after a signal), "failed", what did not happen, and
"canonical", whether the terminal was left reading whole lines.
"""
import codecs
import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
import unicodedata


def set_size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Screen:
    """What a terminal would show: as much of xterm as line editors use. Lines are not wrapped anew when it is resized."""

    SEQUENCE = re.compile("\033\\[([?0-9;]*)([@-~])")

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.cells = [[" "] * columns for _ in range(rows)]
        self.row = self.column = 0

    def resize(self, rows, columns):
        while len(self.cells) > rows and self.row > 0:
            self.cells.pop(0)
            self.row -= 1
        cells = [(line + [" "] * columns)[:columns] for line in self.cells]
        self.cells = (cells + [[" "] * columns for _ in range(rows)])[:rows]
        self.rows, self.columns = rows, columns
        self.column = min(self.column, columns - 1)

    def line_feed(self):
        if self.row + 1 < self.rows:
            self.row += 1
        else:
            self.cells = self.cells[1:] + [[" "] * self.columns]

    def put(self, char):
        if unicodedata.combining(char):
            return
        width = 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if self.column + width > self.columns:
            self.column = 0
            self.line_feed()
        self.cells[self.row][self.column] = char
        if width == 2:
            self.cells[self.row][self.column + 1] = ""
        self.column += width

    def control(self, arguments, letter):
        count = int(arguments) if arguments.isdigit() else 0
        column = min(self.column, self.columns - 1)
        if letter == "A":
            self.row = max(self.row - max(count, 1), 0)
        elif letter == "B":
            self.row = min(self.row + max(count, 1), self.rows - 1)
        elif letter == "C":
            self.column = min(column + max(count, 1), self.columns - 1)
        elif letter == "D":
            self.column = max(column - max(count, 1), 0)
        elif letter == "H":
            self.row = self.column = 0
        elif letter in "JK" and count in (0, 2):
            first = 0 if count == 2 else column
            self.cells[self.row][first:] = [" "] * (self.columns - first)
            if letter == "J":
                for row in range(0 if count == 2 else self.row + 1, self.rows):
                    self.cells[row] = [" "] * self.columns
        elif letter == "P":
            del self.cells[self.row][column:column + max(count, 1)]
        elif letter == "@":
            self.cells[self.row][column:column] = [" "] * max(count, 1)
        self.cells[self.row] = (self.cells[self.row] + [" "] * self.columns)[:self.columns]

    def feed(self, text):
        """Takes text; what is left of it, a sequence that goes on."""
        at = 0
        while at < len(text):
            char = text[at]
            if char == "\033":
                match = self.SEQUENCE.match(text, at)
                if not match:
                    if len(text) - at < 32 and re.fullmatch("\033(\\[[?0-9;]*)?", text[at:]):
                        return text[at:]
                else:
                    self.control(*match.groups())
                    at = match.end()
                    continue
            elif char == "\r":
                self.column = 0
            elif char == "\n":
                self.line_feed()
            elif char == "\b":
                self.column = max(min(self.column, self.columns) - 1, 0)
            elif char == "\t":
                self.column = min((self.column // 8 + 1) * 8, self.columns - 1)
            elif char >= " ":
                self.put(char)
            at += 1
        return ""

    def shown(self):
        rows = ["".join(line).rstrip() for line in self.cells]
        while rows and not rows[-1]:
            rows.pop()
        return rows


class Terminal:
    def __init__(self, scenario):
        self.seconds = scenario.get("seconds", 20)
        self.output, self.seen, self.ended = b"", 0, False
        self.screen = Screen(scenario.get("rows", 24), scenario.get("columns", 80))
        self.decoder, self.undrawn = codecs.getincrementaldecoder("utf-8")("replace"), ""
        self.canonical = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # The child inherits what the parent ignores.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            set_size(0, scenario.get("rows", 24), scenario.get("columns", 80))
            env = dict(os.environ, TERM="xterm", LC_ALL="C.UTF-8")
            env.update(scenario.get("env") or {})
            os.execvpe(scenario["words"][0], scenario["words"], env)

    def read(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0 or self.ended:
            return False
        if not select.select([self.fd], [], [], left)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""
        if not data:
            self.ended = True
        self.output += data
        self.undrawn = self.screen.feed(self.undrawn + self.decoder.decode(data))
        return True

    def expect(self, text):
        wanted = text.encode()
        deadline = time.monotonic() + self.seconds
        while True:
            at = self.output.find(wanted, self.seen)
            if at >= 0:
                self.seen = at + len(wanted)
                return None
            if not self.read(deadline):
                return "expected %r" % text

    def expect_screen(self, rows):
        deadline = time.monotonic() + self.seconds
        while self.screen.shown()[-len(rows):] != rows:
            if not self.read(deadline):
                return "expected the rows %r, not %r" % (rows, self.screen.shown())
        self.seen = len(self.output)
        return None

    def write(self, data):
        while data:
            # Reads meanwhile: a terminal whose output nobody takes takes no input.
            readable, writable, _ = select.select([self.fd], [self.fd], [], self.seconds)
            if readable and not self.ended:
                self.read(time.monotonic() + 1)
            if writable:
                data = data[os.write(self.fd, data[:256]):]
            elif not readable:
                return "typing was not possible"
        return None

    def is_canonical(self):
        try:
            return bool(termios.tcgetattr(self.fd)[3] & termios.ICANON)
        except termios.error:
            return None

    def signal(self, number):
        """Sends it, and waits until it has come: of two that wait there would be one."""
        os.kill(self.pid, number)
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            try:
                with open("/proc/%d/status" % self.pid, encoding="utf-8") as file:
                    masks = re.findall("^(?:Sig|Shd)Pnd:\\s*([0-9a-f]+)", file.read(), re.MULTILINE)
            except OSError:
                return None
            if not any(int(mask, 16) & (1 << (number - 1)) for mask in masks):
                return None
            time.sleep(0.001)
        return "the signal did not come"

    def switches(self):
        try:
            with open("/proc/%d/status" % self.pid, encoding="utf-8") as file:
                return re.findall("^voluntary_ctxt_switches:.*", file.read(), re.MULTILINE)
        except OSError:
            return None

    def idle(self, seconds):
        """Whatever was under way may end first."""
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            before = self.switches()
            time.sleep(seconds)
            if self.switches() == before:
                return None
        return "it was never idle"

    def quit(self):
        deadline = time.monotonic() + self.seconds
        while self.read(deadline):
            pass
        self.canonical = self.is_canonical()
        return self.wait(deadline)

    def wait(self, deadline):
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                if self.status < 0:
                    self.status = 128 - self.status
                return None
            time.sleep(0.005)
        return "it did not end"

    def until(self, path):
        deadline = time.monotonic() + self.seconds
        while not os.path.exists(path):
            if time.monotonic() > deadline:
                return "there was no %s" % path
            time.sleep(0.005)
        return None

    def step(self, step):
        kind = step[0]
        if kind == "expect":
            return self.expect(step[1])
        if kind == "screen":
            return self.expect_screen(step[1])
        if kind == "send":
            return self.write(step[1].encode())
        if kind == "bytes":
            return self.write(bytes.fromhex(step[1]))
        if kind == "idle":
            return self.idle(step[1])
        if kind == "wait":
            return self.wait(time.monotonic() + self.seconds)
        if kind == "until":
            return self.until(step[1])
        if kind == "resize":
            self.screen.resize(step[1], step[2])
            set_size(self.fd, step[1], step[2])
            return None
        if kind == "signal":
            return self.signal(getattr(signal, step[1]))
        return self.quit()


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        scenario = json.load(file)
    terminal = Terminal(scenario)
    terminal.status = None
    failed = None
    for number, step in enumerate(scenario["steps"], 1):
        failed = terminal.step(step)
        if failed:
            failed = "step %d: %s" % (number, failed)
            break
    if terminal.status is None:
        try:
            os.kill(terminal.pid, signal.SIGKILL)
            os.waitpid(terminal.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
    result = {"output": terminal.output.decode("utf-8", "replace"), "status": terminal.status, "failed": failed,
              "canonical": terminal.canonical}
    json.dump(result, sys.stdout)


main()
