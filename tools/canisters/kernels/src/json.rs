//! Reads a JSON text into a tree and writes it back: bytes, branches, many small allocations.

use crate::{Random, fold};

enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

/// Makes a text of about 200 KB once, then reads and writes it `n` times.
pub fn run(n: u32) -> u64 {
    let mut text = String::new();
    write(&document(), &mut text);
    let mut sum = 0;
    for _ in 0..n {
        let mut parser = Parser { bytes: text.as_bytes(), at: 0 };
        let value = parser.value();
        let mut again = String::with_capacity(text.len());
        if let Some(value) = &value {
            write(value, &mut again);
            sum = fold(sum, count(value));
        }
        sum = again.as_bytes().iter().step_by(61).fold(sum, |sum, byte| fold(sum, u64::from(*byte)));
        assert_eq!(again.len(), text.len());
    }
    sum
}

fn document() -> Value {
    let mut random = Random::new(19);
    let mut record = |id: u64| {
        let tags = random.next() % 6;
        let tags = (0..tags).map(|_| Value::Text(format!("tag \"{}\"\n", random.next() % 1_000))).collect();
        Value::Object(vec![
            ("id".into(), Value::Number(id as f64)),
            ("name".into(), Value::Text(format!("account number {:x}", random.next()))),
            ("balance".into(), Value::Number((random.next() % 1_000_000) as f64 / 4.0)),
            ("frozen".into(), Value::Bool(random.next() % 2 == 0)),
            ("parent".into(), Value::Null),
            ("tags".into(), Value::List(tags)),
        ])
    };
    Value::List((0..1_300).map(&mut record).collect())
}

fn count(value: &Value) -> u64 {
    match value {
        Value::Null => 1,
        Value::Bool(flag) => 2 + u64::from(*flag),
        Value::Number(number) => number.to_bits() >> 40,
        Value::Text(text) => text.len() as u64,
        Value::List(items) => items.iter().map(count).sum::<u64>() + 1,
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() as u64 + count(value)).sum(),
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        self.bytes[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())?;
        Some(value)
    }

    fn value(&mut self) -> Option<Value> {
        match self.peek()? {
            b'n' => self.word("null", Value::Null),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'"' => self.text().map(Value::Text),
            b'[' => self.list(),
            b'{' => self.object(),
            _ => self.number(),
        }
    }

    fn list(&mut self) -> Option<Value> {
        self.eat(b'[')?;
        let mut items = Vec::new();
        if self.eat(b']').is_some() {
            return Some(Value::List(items));
        }
        loop {
            items.push(self.value()?);
            if self.eat(b',').is_none() {
                return self.eat(b']').map(|()| Value::List(items));
            }
        }
    }

    fn object(&mut self) -> Option<Value> {
        self.eat(b'{')?;
        let mut fields = Vec::new();
        if self.eat(b'}').is_some() {
            return Some(Value::Object(fields));
        }
        loop {
            self.peek()?;
            let name = self.text()?;
            self.eat(b':')?;
            fields.push((name, self.value()?));
            if self.eat(b',').is_none() {
                return self.eat(b'}').map(|()| Value::Object(fields));
            }
        }
    }

    fn text(&mut self) -> Option<String> {
        self.eat(b'"')?;
        let mut out = Vec::new();
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(out).ok(),
                b'\\' => {
                    let escaped = *self.bytes.get(self.at)?;
                    self.at += 1;
                    out.push(if escaped == b'n' { b'\n' } else { escaped });
                }
                _ => out.push(byte),
            }
        }
    }

    fn number(&mut self) -> Option<Value> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) {
            self.at += 1;
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).ok()?;
        text.parse().ok().map(Value::Number)
    }
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::Text(text) => write_text(text, out),
        Value::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (at, (name, item)) in fields.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_text(name, out);
                out.push(':');
                write(item, out);
            }
            out.push('}');
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}
