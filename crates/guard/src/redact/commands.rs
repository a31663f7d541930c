//! Secrets on command lines, as processes, manifests and shell histories show them: `curl -u user:password`, `mysql -psecret`,
//! `["redis-cli", "-a", "secret"]`. What a single letter means depends on the program, so none is judged without one in front
//! of it: `docker run -p 8080:80` and `mkdir -p data` say nothing. Must stay linear: no stretch is looked through twice.

use super::fields::{self, Place};
use super::scan::{RANK_FIELD, Scan};

/// Bytes in front of a flag in which its program is looked for.
const NEAR: usize = 512;
/// Longest value of a flag.
const LONGEST: usize = 4_096;

/// Where a flag has its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// `user:password`, with this sign between them: the password goes.
    Pair(u8),
    /// In the next argument.
    Next,
    /// Behind the letter without a space; alone, the program asks for it.
    Glued,
    /// Either.
    Both,
    /// Either, and only where the program was told to `login`.
    Login,
}

/// A program and its flags with secrets.
#[derive(Debug)]
struct Program {
    names: &'static [&'static str],
    flags: &'static [(u8, How)],
}

const PROGRAMS: &[Program] = &[
    Program { names: &["curl"], flags: &[(b'u', How::Pair(b':')), (b'U', How::Pair(b':'))] },
    Program { names: &["http", "https", "xh", "xhs"], flags: &[(b'a', How::Pair(b':'))] },
    Program { names: &["lftp"], flags: &[(b'u', How::Pair(b','))] },
    Program { names: &["smbclient", "smbget", "rpcclient", "winexe"], flags: &[(b'U', How::Pair(b'%'))] },
    Program {
        names: &[
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mysqlimport",
            "mysqlsh",
            "mysqlcheck",
            "mysqlshow",
            "mysqlslap",
            "mysqlpump",
            "mysqlbinlog",
            "mariadb",
            "mariadb-dump",
            "mariadb-admin",
            "mariadb-import",
            "mydumper",
            "7z",
            "7za",
            "7zz",
        ],
        flags: &[(b'p', How::Glued)],
    },
    Program {
        names: &[
            "sshpass",
            "mongo",
            "mongosh",
            "mongodump",
            "mongorestore",
            "mongoexport",
            "mongoimport",
            "cqlsh",
            "rabbitmqadmin",
        ],
        flags: &[(b'p', How::Both)],
    },
    Program { names: &["redis-cli", "redis-benchmark", "valkey-cli", "keydb-cli"], flags: &[(b'a', How::Next)] },
    Program {
        names: &[
            "docker", "podman", "nerdctl", "buildah", "skopeo", "oras", "crane", "helm", "regctl", "oc", "cf", "az", "argocd",
        ],
        flags: &[(b'p', How::Login)],
    },
    Program {
        names: &["ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami", "ldapcompare", "ldappasswd", "vsql"],
        flags: &[(b'w', How::Both)],
    },
    Program {
        names: &["sqlcmd", "bcp", "osql", "tsql", "ipmitool", "mosquitto_pub", "mosquitto_sub", "zip", "unzip"],
        flags: &[(b'P', How::Both)],
    },
    Program {
        names: &["snmpwalk", "snmpget", "snmpset", "snmpbulkwalk", "snmpbulkget"],
        flags: &[(b'A', How::Next), (b'X', How::Next)],
    },
];

/// Names of flags that are a secret's and no field's.
const LONG: [&[u8]; 2] = [b"storepass", b"srcstorepass"];

/// Bytes that can be the only letter of a flag with a secret, and those that begin the name of a program.
const LETTERS: [bool; 256] = {
    let mut table = [false; 256];
    let mut program = 0;
    while program < PROGRAMS.len() {
        let mut flag = 0;
        while flag < PROGRAMS[program].flags.len() {
            table[PROGRAMS[program].flags[flag].0 as usize] = true;
            flag += 1;
        }
        program += 1;
    }
    table
};
/// The same, and the first letters of the names of secrets: `-password`, `-token`, `-secret`.
const SHORT: [bool; 256] = {
    let mut table = LETTERS;
    table[b'p' as usize] = true;
    table[b't' as usize] = true;
    table[b's' as usize] = true;
    table
};
const FIRSTS: [bool; 256] = {
    let mut table = [false; 256];
    let mut program = 0;
    while program < PROGRAMS.len() {
        let mut name = 0;
        while name < PROGRAMS[program].names.len() {
            table[PROGRAMS[program].names[name].as_bytes()[0] as usize] = true;
            name += 1;
        }
        program += 1;
    }
    table
};

/// The command that was read last, and how far.
#[derive(Debug, Default)]
pub(super) struct Command {
    program: Option<&'static Program>,
    login: bool,
    /// Up to where programs were looked for.
    read: usize,
}

impl Command {
    /// Reads on to `at`.
    fn read_to(&mut self, bytes: &[u8], at: usize) {
        let mut from = self.read;
        if at.saturating_sub(from) > NEAR {
            from = at - NEAR;
            (self.program, self.login) = (None, false);
        }
        let mut place = from;
        while place < at {
            let byte = bytes[place];
            if in_word(byte) {
                let length = bytes[place..].iter().take(64).take_while(|b| in_word(**b)).count();
                if FIRSTS[usize::from(byte)] || byte == b'l' {
                    self.word(&bytes[place..place + length], bytes.get(place + length).copied());
                }
                place += length;
                continue;
            }
            if ends_command(bytes, place) {
                (self.program, self.login) = (None, false);
            }
            place += 1;
        }
        self.read = place.max(self.read);
    }

    fn word(&mut self, word: &[u8], next: Option<u8>) {
        if word == b"login" {
            self.login = true;
        } else if matches!(next, None | Some(b' ' | b'\t' | b'\n' | b'"' | b'\'' | b'\\'))
            && let Some(program) = PROGRAMS.iter().find(|program| program.names.iter().any(|name| name.as_bytes() == word))
        {
            (self.program, self.login) = (Some(program), false);
        }
    }

    fn how(&self, letter: u8) -> Option<How> {
        let (_, how) = self.program?.flags.iter().find(|(known, _)| *known == letter)?;
        (*how != How::Login || self.login).then_some(*how)
    }

    fn pair(&self) -> Option<How> {
        self.program?.flags.iter().map(|(_, how)| *how).find(|how| matches!(how, How::Pair(_)))
    }
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Whether what stands at `at` ends a command. A line ends none that goes on in the next, nor an item of a list.
fn ends_command(bytes: &[u8], at: usize) -> bool {
    match bytes[at] {
        b';' | b'|' | b'&' | b'(' | b'`' => true,
        b'\n' => {
            let next = at + 1 + bytes[at + 1..].iter().take(64).take_while(|b| **b == b' ').count();
            let goes_on = at > 0 && (bytes[at - 1] == b'\\' || bytes[at - 1] == b',');
            !goes_on && !bytes[next..].starts_with(b"- ") && !matches!(bytes.get(next), Some(b'"' | b'\''))
        }
        _ => false,
    }
}

impl Scan<'_> {
    /// `--password x`, and `--user ana:x` of programs that take both in one.
    pub(super) fn long_flag(&mut self, command: &mut Command, dash: usize) {
        let bytes = self.bytes;
        let name = [&b"--user"[..], b"--proxy-user", b"--auth"].into_iter().find(|name| bytes[dash..].starts_with(name));
        if let Some(name) = name {
            command.read_to(bytes, dash);
            if let Some(how) = command.pair() {
                let behind = dash + name.len();
                let place = match bytes.get(behind) {
                    Some(b'=') => argument(bytes, behind + 1),
                    _ => next_argument(bytes, behind),
                };
                self.flag_value(how, dash, place);
            }
        }
        self.flag(dash, 2);
    }

    /// `-p x` and `-px`, by what the program means with it; `-password x`. The dash is at `dash`.
    pub(super) fn short_flag(&mut self, command: &mut Command, dash: usize) {
        let bytes = self.bytes;
        let letter = bytes[dash + 1];
        if !SHORT[usize::from(letter)] || !matches!(bytes[..dash], [.., b' ' | b'"' | b'\'']) {
            return;
        }
        if LETTERS[usize::from(letter)] {
            command.read_to(bytes, dash);
            if let Some(how) = command.how(letter) {
                let place = match how {
                    How::Glued => argument(bytes, dash + 2),
                    How::Next => next_argument(bytes, dash + 2),
                    How::Both | How::Login | How::Pair(_) => argument(bytes, dash + 2).or_else(|| next_argument(bytes, dash + 2)),
                };
                return self.flag_value(how, dash, place);
            }
        }
        self.flag(dash, 1);
    }

    fn flag_value(&mut self, how: How, flag: usize, place: Option<Place>) {
        let bytes = self.bytes;
        let Some(mut place) = place else { return };
        self.wide |= bytes[flag..place.start].contains(&b'\n');
        if let How::Pair(sign) = how {
            let value = &bytes[place.start..place.end];
            match value.iter().position(|b| *b == sign) {
                // A token in the user's place, or a user whose password is asked for.
                Some(at) if at + 1 == value.len() && at >= 16 && fields::secretish(&value[..at]) => place.end -= 1,
                Some(at) => place.start += at + 1,
                None => return,
            }
        }
        let value = &bytes[place.start..place.end];
        if !value.is_empty() && !fields::harmless(value) && !is_variable(value) {
            self.judges(flag);
            self.secret(place.start, place.end, "secret-value", RANK_FIELD);
        }
    }

    /// `--password hunter2`, `-password hunter2` and `"--password", "hunter2"`, the name behind so many hyphens at `dash`.
    fn flag(&mut self, dash: usize, hyphens: usize) {
        let bytes = self.bytes;
        let at = dash + hyphens;
        let length = bytes[at..].iter().take(64).take_while(|b| fields::in_name(**b)).count();
        let (name, end) = (&bytes[at..at + length], at + length);
        if length < 3 || !matches!(bytes.get(end), Some(b' ' | b'"' | b'\'' | b'\n')) {
            return;
        }
        if LONG.contains(&name) {
            return self.flag_value(How::Next, at, next_argument(bytes, end));
        }
        let Some(strength) = fields::strength(name) else { return };
        match bytes.get(end + 1) {
            Some(b'-' | b' ') | None if bytes[end] == b' ' => {}
            _ if bytes[end] == b' ' => self.flag_field(fields::Name { strength, start: at, end }, end, hyphens),
            _ => {
                // An argument of its own: whole, so it is judged like a value in quotes.
                let Some(place) = next_argument(bytes, end) else { return };
                let sure = matches!(strength, fields::Strength::Password | fields::Strength::Strong);
                if sure || fields::secretish(&bytes[place.start..place.end]) {
                    self.flag_value(How::Next, at, Some(place));
                }
            }
        }
    }
}

/// The argument that begins at `at`: in quotes, or to the next space.
fn argument(bytes: &[u8], at: usize) -> Option<Place> {
    if matches!(bytes.get(at), Some(b'"' | b'\'')) {
        let quoted = fields::quoted_at(bytes, at)?;
        // The end of a flag that stood in quotes itself.
        let closed = bytes.get(quoted.start).is_none_or(|b| matches!(b, b',' | b']' | b'\n' | b' ' | b')'));
        let line = memchr::memchr(b'\n', &bytes[quoted.start..quoted.end]).is_some();
        return (!closed && !line && quoted.end - quoted.start <= LONGEST).then_some(quoted);
    }
    let mut end = at;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b'"' | b'\'' | b'`' | b'<' | b'>' | b'|' => break,
            b';' | b'&' | b')' | b',' | b']' if bytes.get(end + 1).is_none_or(u8::is_ascii_whitespace) => break,
            b'\\' if matches!(bytes.get(end + 1), Some(b'n' | b'r' | b't' | b'"' | b'\'' | b'\\') | None) => break,
            _ => end += 1,
        }
    }
    (end > at && end - at <= LONGEST).then_some(Place { start: at, end, quoted: false })
}

/// The argument behind a flag that ends at `at`: behind a space, in the next line of a command that goes on, or the next item
/// of a list in JSON or YAML.
fn next_argument(bytes: &[u8], at: usize) -> Option<Place> {
    let spaces = |from: usize| from + bytes[from..].iter().take(64).take_while(|b| matches!(**b, b' ' | b'\t')).count();
    let lines = |from: usize| from + bytes[from..].iter().take(64).take_while(|b| b.is_ascii_whitespace()).count();
    let start = match bytes.get(at)? {
        b' ' | b'\t' => {
            let start = spaces(at);
            if bytes[start..].starts_with(b"\\\n") { spaces(start + 2) } else { start }
        }
        quote @ (b'"' | b'\'') => {
            let comma = lines(at + 1);
            if bytes.get(comma) == Some(&b',') {
                let start = lines(comma + 1);
                (bytes.get(start) == Some(quote)).then_some(start)?
            } else {
                item(bytes, at + 1)?
            }
        }
        b'\n' => item(bytes, at)?,
        _ => return None,
    };
    match bytes.get(start)? {
        // Another flag: this one had no value.
        b'-' => None,
        b'"' | b'\'' => {
            let quoted = fields::quoted_at(bytes, start)?;
            let first = bytes.get(quoted.start).copied();
            let sound = first != Some(b'-') && memchr::memchr(b'\n', &bytes[quoted.start..quoted.end]).is_none();
            (sound && quoted.end > quoted.start && quoted.end - quoted.start <= LONGEST).then_some(quoted)
        }
        _ => argument(bytes, start),
    }
}

/// The next item of a YAML list, whose line ends at `at`.
fn item(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'\n') {
        return None;
    }
    let dash = at + 1 + bytes[at + 1..].iter().take(64).take_while(|b| **b == b' ').count();
    bytes[dash..].starts_with(b"- ").then_some(dash + 2)
}

/// `$PASSWORD`: the shell puts the secret there, and it is not here.
fn is_variable(value: &[u8]) -> bool {
    value.strip_prefix(b"$").or_else(|| value.strip_prefix(b"%")).is_some_and(|name| {
        let name = name.strip_suffix(b"%").unwrap_or(name);
        !name.is_empty()
            && name.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_')
            && !name[0].is_ascii_digit()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_end_where_a_shell_ends_them() {
        let text = |place: Option<Place>, bytes: &'static str| place.map(|p| &bytes[p.start..p.end]);
        for (line, at, found) in [
            ("-p hunter2 x", 2, Some("hunter2")),
            ("-p 'a b' x", 2, Some("a b")),
            ("-p -h x", 2, None),
            ("\"-p\", \"a b\"]", 3, Some("a b")),
            ("- -p\n- a\n", 4, Some("a")),
            ("-p \\\n  a", 2, Some("a")),
            ("-p", 2, None),
        ] {
            assert_eq!(text(next_argument(line.as_bytes(), at), line), found, "{line}");
        }
        assert_eq!(text(argument(b"-pa;b; c", 2), "-pa;b; c"), Some("a;b"));
        assert_eq!(argument(b"\"-p\", \"a\"", 3), None);
        assert!(is_variable(b"$DB_PASS") && !is_variable(b"$ecret1") && !is_variable(b"$"));
    }
}
