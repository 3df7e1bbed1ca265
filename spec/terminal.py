"""Runs a program in a pseudo-terminal and plays a scenario: python3 spec/terminal.py SCENARIO.json

The scenario is an object: "words" (the program), "env", "rows", "columns", "seconds" (for each wait), and "steps", a
list of

  ["expect", TEXT]            waits until TEXT is written, after what was expected before
  ["send", TEXT]              types TEXT; ["bytes", HEX] types bytes
  ["resize", ROWS, COLUMNS]   the terminal has another size
  ["signal", NAME]            sends a signal to the program
  ["quit"]                    waits until the program has ended

It writes an object: "output", "status" (128 and the number after a signal), "failed", what did not happen, and
"canonical", whether the terminal was left reading whole lines.
"""
import errno
import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time


def set_size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Terminal:
    def __init__(self, scenario):
        self.seconds = scenario.get("seconds", 20)
        self.output, self.seen, self.ended = b"", 0, False
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

    def quit(self):
        deadline = time.monotonic() + self.seconds
        while self.read(deadline):
            pass
        self.canonical = self.is_canonical()
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                if self.status < 0:
                    self.status = 128 - self.status
                return None
            time.sleep(0.005)
        return "it did not end"

    def step(self, step):
        kind = step[0]
        if kind == "expect":
            return self.expect(step[1])
        if kind == "send":
            return self.write(step[1].encode())
        if kind == "bytes":
            return self.write(bytes.fromhex(step[1]))
        if kind == "resize":
            set_size(self.fd, step[1], step[2])
            return None
        if kind == "signal":
            os.kill(self.pid, getattr(signal, step[1]))
            return None
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
