"""Command lines as people paste them, read as a shell reads them; nothing is ever run.

Assignments before a command fill its variables, comments and line ends go, `;` and `&&` separate.
What only a running shell could know (an unset variable, `$(...)`) stays in a word as `Unknown`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import dropwhile

from adm_cli.errors import ConfigError, trim

_MOST_TEXT = 200_000  # characters, of the text and of any word after its variables are filled in
_MOST_FILLED = 5_000_000  # likewise, of all commands together
_MOST_DEPTH = 8  # of $(...), eval and bash -c in one another
_OPEN, _CLOSE = "\ue000", "\ue001"  # around the name of what is not known
_UNKNOWN = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.ASCII | re.DOTALL)
_NAME = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!-]", re.ASCII)
_SPLAT = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)  # @FLAGS of PowerShell, @FILE of argparse
_BRACED = re.compile(r"([A-Za-z_]\w*|[0-9]+|[@*])(\[[@*]\])?(?:(:?[-=+])(.*))?", re.ASCII | re.S)
_NOTEBOOK = re.compile(r"([A-Za-z_]\w*)\}", re.ASCII)  # !python x.py {FLAGS}
_SPLIT = re.compile(r"\.split\([^()\n]*\)", re.IGNORECASE)  # $FLAGS.Split(" ") of PowerShell
_LISTED = re.compile(r"^[ \t]*\$\w+[ \t]*=[ \t]*[\"']--\S+,[^\n()]*$", re.M)  # of PowerShell
_DASHES = "‐‑‒–—―−"  # what word processors make of hyphens
_PLACEHOLDER = re.compile(r"<\w(?:[^<>\n]*[^<>\s])?>(?![\w])")  # <path to model>: no redirection
_REDIRECTION = re.compile(r"&?>{1,2}[&|]?|<{1,3}-?")
_SEPARATOR = re.compile(r"&&|\|\||;;|[;&|()\n]")
_PROMPTS = frozenset("$ % > >>> ! { } do then else elif if while until fi done time RUN".split())
_EXPORTS = frozenset("export declare typeset local readonly set_env env setenv ENV".split())
_EQUALS = {"=": "=", ":=": "=", "::=": "=", "?=": "=", "+=": "+= "}
_SILENT = frozenset("echo printf cat alias unset cd".split())
_BATCH = re.compile(r"^[ \t]*@?set[ \t]+\"?[A-Za-z_]\w*=|\^[ \t]*$", re.I | re.M | re.ASCII)


@dataclass(frozen=True)
class PastedCommand:
    """The words of one command, launcher and all; `unknowns` tells what is not known of a word."""

    words: tuple[str, ...]
    after_comment: bool = False  # a comment cut it off from the lines before


@dataclass
class PastedText:
    """What a text holds: its commands in order, and the last value of every variable."""

    commands: list[PastedCommand] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    rivals: list[str] = field(default_factory=list)  # variables with a value a branch
    characters: int = 0


def unknowns(word: str) -> list[str]:
    """What of a word is not known: the names of unset variables, or `(...)` for a command."""
    return _UNKNOWN.findall(word)


def spelt(word: str) -> str:
    """A word as it was written, where it is not known."""
    return _UNKNOWN.sub(r"$\1", word)


def read_pasted(text: str) -> PastedText:
    """The commands of a text: POSIX shells, notebooks' ``!`` and ``%env``, Windows' ``set``.

    Raises ConfigError for a text of more than 200,000 characters, or quotes left open.
    """
    if len(text) > _MOST_TEXT:
        raise ConfigError(f"flags: {len(text):,} characters, expected at most {_MOST_TEXT:,}")
    text = _plain(text)
    if _BATCH.search(text):
        text = _from_batch(text)
    found = PastedText()
    _Reader(text, found, 0).read()
    return found


def _plain(text: str) -> str:
    """Line ends, quotes, dashes and blanks as a shell knows them, whatever pasting made of them."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace(_OPEN, "").replace(_CLOSE, "")
    text = text.translate(dict(zip(map(ord, "“”„‘’\u00a0\u2028"), '"""\'\' \n', strict=True)))
    text = _LISTED.sub(lambda line: re.sub("(?<=[\"']),", " ", line[0]), text)
    text = re.sub(rf"(?<![^\s\"'=])-*[{_DASHES}][-{_DASHES}]*(?=[A-Za-z])", "--", text)
    return re.sub(r"^[ \t]*(```|~~~).*$", "", text, flags=re.M).replace("``", "`")


def _from_batch(text: str) -> str:
    """A Windows batch file as a shell would write it."""
    text = re.sub(r"\^[ \t]*\n", " ", text)
    text = re.sub(r"(?<![>&])&&?", "\n", text)
    lines = []
    for line in text.split("\n"):
        line = re.sub(r"%([A-Za-z_]\w*)%", r"${\1}", line.strip().removeprefix("@"))
        line = re.sub(r"%[*0-9~]\S*|\^", " ", line).replace("\\", "/").replace("'", "\\'")
        if re.match(r"(rem\b|::|echo\b)", line, re.I):
            continue
        if given := re.match(r"set[ \t]+(\"?)([A-Za-z_]\w*)=(.*)", line, re.I):
            value = given[3].rstrip().removesuffix("&").rstrip()
            if given[1]:
                value = value.removesuffix('"')
            value = value.replace('"', "")
            line = f'{given[2]}="{value}"'
        lines.append(line)
    return "\n".join(lines)


class _Words:
    """The words of the command being read."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.now: str | None = None
        self.target = False  # the next word is where a redirection goes

    def add(self, text: str) -> None:
        self.now = (self.now or "") + text
        if len(self.now) > _MOST_TEXT:
            raise ConfigError("flags: the variables fill a word of endless length")

    def add_split(self, text: str) -> None:
        """As an unquoted variable: blanks in it end words."""
        for piece in re.findall(r"\s+|\S+", text):
            self.end() if piece.isspace() else self.add(piece)

    def end(self) -> None:
        if self.now is not None and not self.target:
            self.done.append(self.now)
        if self.now is not None:
            self.target = False
        self.now = None
        if sum(map(len, self.done)) > 4 * _MOST_TEXT:
            raise ConfigError("flags: the variables fill a command of endless length")

    def redirect(self) -> None:
        if self.now is not None and self.now.isdecimal():
            self.now = None  # the 2 of 2>&1
        self.end()
        self.target = True


class _Reader:
    """Reads one text from its begin to its end."""

    def __init__(self, text: str, found: PastedText, depth: int) -> None:
        if depth > _MOST_DEPTH:
            raise ConfigError("flags: commands within commands, too deep to be read")
        self.text, self.found, self.depth = text, found, depth
        self.at = self.arrays = 0  # lists that are open
        self.branches = 0  # of if and case, within which this is
        # Of this command: lines were joined, a comment ended it there. Of the one before: that.
        self.continued = self.cut = self.follows_cut = False

    def read(self) -> None:
        words = _Words()
        while self.at < len(self.text):
            if not self._one(words):
                words.end()
                self._command(words.done)
                words = _Words()
        words.end()
        self._command(words.done)

    def _one(self, words: _Words) -> bool:
        """Reads a little more; False where a command ends."""
        text, char = self.text, self.text[self.at]
        if joined := re.compile(r"[\\`][ \t]*\n").match(text, self.at):
            self.at, self.continued = joined.end(), True
            if joined[0] != "\\\n":
                words.end()
        elif char in " \t":
            words.end()
            self.at += 1
        elif char == "#" and words.now is None:
            self.cut = self.continued and bool(words.done)  # a backslash joined the comment to it
            end = text.find("\n", self.at)
            self.at = len(text) if end < 0 else end
        elif char == "<" and (placeholder := _PLACEHOLDER.match(text, self.at)):
            words.add(placeholder[0])
            self.at = placeholder.end()
        elif redirection := _REDIRECTION.match(text, self.at):
            words.redirect()
            self.at = redirection.end()
        elif char == "(" and words.now is not None and _ASSIGNMENT.fullmatch(words.now):
            words.add(f" {self._array()}" if words.now.endswith("+=") else self._array())
        elif separator := _SEPARATOR.match(text, self.at):
            self.at = separator.end()
            return False
        else:
            self._part(words)
        return True

    def _part(self, words: _Words) -> None:
        char = self.text[self.at]
        self.at += 1
        if char == "'":
            words.add(self._until("'"))
        elif char == '"':
            self._quoted(words)
        elif char == "\\":
            words.add(self.text[self.at : self.at + 1])
            self.at += 1
        elif char == "$":
            value = self._variable()
            if split := _SPLIT.match(self.text, self.at):
                self.at = split.end()
            whole = words.now is not None and "=" in words.now and _ASSIGNMENT.match(words.now)
            words.add(value) if whole else words.add_split(value)
        elif char == "{" and words.now is None and (name := _NOTEBOOK.match(self.text, self.at)):
            self.at = name.end()
            words.add_split(self._value(name[1], None, None))
        elif char == "@" and words.now is None and (name := _SPLAT.match(self.text, self.at)):
            self.at = name.end()
            words.add_split(self._value(name[0], None, None))
        elif char == "`":
            self._inner(self._until("`"))
            words.add(f"{_OPEN}(...){_CLOSE}")
        else:
            words.add(char)

    def _until(self, quote: str) -> str:
        end = self.text.find(quote, self.at)
        if end < 0:
            raise ConfigError(f"flags: no closing quotation ({quote}), in {trim(self.text)}")
        start, self.at = self.at, end + 1
        return self.text[start:end]

    def _quoted(self, words: _Words) -> None:
        words.add("")
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            if char == '"':
                return
            if char == "\\" and (line := re.compile(r"[ \t]*\n").match(self.text, self.at)):
                words.add("" if line[0] == "\n" else " ")
                self.at = line.end()
            elif char == "\\" and self.text[self.at : self.at + 1] in ("$", "`", '"', "\\"):
                words.add(self.text[self.at])
                self.at += 1
            elif char == "$":
                every = re.compile(r"\{\w+\[@\]\}").match(self.text, self.at)
                value = self._variable()
                words.add_split(value) if every else words.add(value)
            else:
                words.add(char)
        raise ConfigError(f'flags: no closing quotation ("), in {trim(self.text)}')

    def _array(self) -> str:
        """``NAME=(a b c)``, its words joined by blanks."""
        inner = _Words()
        self.at += 1
        self.arrays += 1
        if self.arrays > _MOST_DEPTH:
            raise ConfigError("flags: lists within lists, too deep to be read")
        while self.at < len(self.text) and self.text[self.at] != ")":
            if not self._one(inner):
                inner.end()
        inner.end()
        self.at += 1
        self.arrays -= 1
        return " ".join(inner.done)

    def _variable(self) -> str:
        """What follows a dollar: the value of a variable, or what stands for the unknown."""
        text = self.text
        if text.startswith("(", self.at):
            inner = self._balanced("(", ")")
            if inner in self.found.variables:  # as make writes it
                return self.found.variables[inner]
            if not inner.startswith("("):
                self._inner(inner)
            return f"{_OPEN}(...){_CLOSE}"
        if text.startswith("{", self.at):
            inner = self._balanced("{", "}")
            if found := _BRACED.fullmatch(inner):
                return self._value(found[1], found[3], found[4])
            return f"{_OPEN}{{...}}{_CLOSE}"
        if named := re.compile(r"env:(\w+)", re.ASCII).match(text, self.at):
            self.at = named.end()
            return self._value(named[1], None, None)
        name = _NAME.match(text, self.at)
        if name is None:
            return "$"
        self.at = name.end()
        return self._value(name[0], None, None)

    def _value(self, name: str, operator: str | None, other: str | None) -> str:
        value = self.found.variables.get(name)
        if operator in (":+", "+"):
            return "" if not value else self._filled(other or "")
        if value:
            return value
        if operator is not None:
            return self._filled(other or "")
        return value if value is not None else f"{_OPEN}{name}{_CLOSE}"

    def _filled(self, text: str) -> str:
        reader = _Reader(text + '"', self.found, self.depth + 1)
        words = _Words()
        try:
            reader._quoted(words)
        except ConfigError:  # quotes inside: as they are
            return text
        return words.now or ""

    def _balanced(self, opening: str, closing: str) -> str:
        start, depth = self.at + 1, 0
        while self.at < len(self.text):
            depth += (self.text[self.at] == opening) - (self.text[self.at] == closing)
            self.at += 1
            if not depth:
                return self.text[start : self.at - 1]
        raise ConfigError(f"flags: {opening} without {closing}, in {trim(self.text)}")

    def _inner(self, text: str) -> None:
        _Reader(text, self.found, self.depth + 1).read()

    def _command(self, words: list[str]) -> None:
        """Obeys an assignment, keeps anything else."""
        self.continued, cut, self.cut = False, self.cut, False
        first = words[0] if words else ""
        self.branches += (first in ("if", "case")) - (first in ("fi", "esac"))
        words = _without_prompt(words)
        if not words:
            return
        self.found.characters += sum(map(len, words))
        if self.found.characters > _MOST_FILLED:
            raise ConfigError("flags: the variables fill commands of endless length")
        exported = words[0] in _EXPORTS
        if exported:
            words = [w for w in words[1:] if w[:1] != "-" or w[:2] == "--"]
        rest = _without_assignments(words)
        follows = self.follows_cut and bool(rest) and rest[0].startswith("--")
        self.follows_cut = cut or follows
        if not rest or (exported and not any(word.endswith(".py") for word in rest)):
            for word in words:
                self._assign(word)
        elif inner := _within(rest):
            self._inner(inner)
        elif rest[0] not in _SILENT:
            self.found.commands.append(PastedCommand(tuple(rest), follows))

    def _assign(self, word: str) -> None:
        if match := _ASSIGNMENT.fullmatch(word):
            name, plus, value = match.groups()
            before = self.found.variables.pop(name, "")
            if self.branches > 0 and before not in ("", value) and not plus:
                self.found.rivals.append(name)
            self.found.variables[name] = f"{before}{value}" if plus else value  # now the last


def _without_prompt(words: list[str]) -> list[str]:
    """The words after prompts and a shell's own; other shells' assignments as POSIX writes them."""
    while words and (words[0] in _PROMPTS or not words[0]):
        words = words[1:]
    if not words:
        return []
    first = _UNKNOWN.sub(r"\1", words[0], count=1) if words[0].startswith(_OPEN) else words[0]
    if len(words) > 2 and words[1] in _EQUALS and _NAME.fullmatch(first):
        return [f"{first}{_EQUALS[words[1]]}{' '.join(words[2:])}"]  # notebooks, PowerShell, make
    if given := _ASSIGNMENT.fullmatch(first):
        if given[3].startswith("--"):  # make: all of the line is the value
            return [" ".join([first, *words[1:]])]
        return [first, *words[1:]]  # $env:NAME=value
    if words[0] == "setenv" and len(words) == 3:
        return [f"{words[1]}={words[2]}"]
    return [re.sub(r"^[!%](?=\w)", "", words[0]), *words[1:]]


def _without_assignments(words: list[str]) -> list[str]:
    """The words of a command after the variables that are set for it alone."""
    return list(dropwhile(_ASSIGNMENT.fullmatch, words))


def _within(words: list[str]) -> str:
    """The text of a command that is given to another shell."""
    if words[0] == "eval":
        return " ".join(words[1:])
    for i, word in enumerate(words[:-1]):
        if word in ("-c", "-lc") and i and words[i - 1].rsplit("/", 1)[-1] in ("bash", "sh", "zsh"):
            return words[i + 1]
    if wrapped := next((w for w in words if w.startswith("--wrap=")), ""):
        return wrapped.removeprefix("--wrap=")
    if any(word.endswith(".py") for word in words):
        return ""
    return next((w for w in words if re.search(r"\.py\s.*--\w", w, re.S)), "")  # ssh, tmux
