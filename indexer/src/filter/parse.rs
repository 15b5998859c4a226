//! Filters as text.
//!
//! ```text
//! filter  = and { "or" and } .
//! and     = unary { "and" unary } .
//! unary   = "not" unary | "(" filter ")" | term .
//! term    = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
//!         | field "between" value "and" value
//!         | value ( "<" | "<=" ) field ( "<" | "<=" ) value
//!         | field "in" "(" [ value { "," value } ] ")"
//!         | field "prefix" text
//!         | "exists" field .
//! field   = word | "`" { character } "`" .
//! value   = text | number | "true" | "false" .
//! text    = '"' { character } '"' | "'" { character } "'" .
//! number  = [ "-" ] digits [ "." digits ] [ ( "e" | "E" ) [ "+" | "-" ] digits ] .
//! word    = ( letter | "_" ) { letter | digit | "_" | "." | "-" | ":" } .
//! ```
//!
//! Keywords may be in upper case; a field called like one goes into backquotes. `between` includes
//! both ends. In quotes of all three kinds a backslash starts an escape: `\\`, `\"`, `\'`, `` \` ``,
//! `\n`, `\r`, `\t`, `\u{1F600}`.

use std::ops::Bound;

use super::{Field, Filter, FilterError, MAX_DEPTH, MAX_TEXT, Scalar, Test, too_deep, too_long};

/// Words with a meaning of their own.
pub(super) const KEYWORDS: [&str; 9] =
    ["and", "or", "not", "in", "between", "prefix", "exists", "true", "false"];

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// In backquotes.
    Quoted(String),
    Text(String),
    Number(f64),
    /// `(`, `)`, `,`, or a comparison.
    Sign(&'static str),
    End,
}

pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    if text.len() > MAX_TEXT {
        return Err(too_long(text.len()));
    }
    let mut parser = Parser { text, at: 0, start: 0, token: Token::End };
    parser.advance()?;
    if parser.token == Token::End {
        return Err(parser.expected("a condition", "label = \"dog\""));
    }
    let filter = parser.or(0)?;
    if parser.token != Token::End {
        return Err(parser.expected("`and`, `or` or the end", "a = 1 and b = 2"));
    }
    filter.check()?;
    Ok(filter)
}

struct Parser<'a> {
    text: &'a str,
    /// Byte after the current token.
    at: usize,
    /// First byte of the current token.
    start: usize,
    token: Token,
}

impl Parser<'_> {
    fn or(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let mut parts = vec![self.and(depth)?];
        while self.takes_keyword("or")? {
            parts.push(self.and(depth)?);
        }
        Ok(one_or(parts, Filter::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let mut parts = vec![self.unary(depth)?];
        while self.takes_keyword("and")? {
            parts.push(self.unary(depth)?);
        }
        Ok(one_or(parts, Filter::And))
    }

    fn unary(&mut self, depth: usize) -> Result<Filter, FilterError> {
        if depth > MAX_DEPTH {
            return Err(FilterError { at: Some(self.start), ..too_deep() });
        }
        if self.takes_keyword("not")? {
            return Ok(Filter::Not(Box::new(self.unary(depth + 1)?)));
        }
        if self.takes("(")? {
            let filter = self.or(depth + 1)?;
            self.expect(")", "(a = 1 or b = 2)")?;
            return Ok(filter);
        }
        self.term()
    }

    fn term(&mut self) -> Result<Filter, FilterError> {
        if self.takes_keyword("exists")? {
            let field = self.field("exists exif.lat")?;
            return Ok(Filter::Term(field, Test::Exists));
        }
        if let Some(low) = self.takes_value()? {
            const EXAMPLE: &str = "640 <= width < 1024";
            let low = match self.takes_comparison(&["<", "<="], "`<` or `<=`", EXAMPLE)? {
                "<" => Bound::Excluded(low),
                _ => Bound::Included(low),
            };
            let field = self.field(EXAMPLE)?;
            let sign = self.takes_comparison(&["<", "<="], "`<` or `<=`", EXAMPLE)?;
            let high = self.value(EXAMPLE)?;
            let high = if sign == "<" { Bound::Excluded(high) } else { Bound::Included(high) };
            return Ok(Filter::Term(field, Test::Range(low, high)));
        }
        let field = self.field("label = \"dog\"")?;
        let test = self.test()?;
        Ok(Filter::Term(field, test))
    }

    fn test(&mut self) -> Result<Test, FilterError> {
        if self.takes_keyword("in")? {
            return self.list();
        }
        if self.takes_keyword("prefix")? {
            let Token::Text(text) = &self.token else {
                return Err(self.expected("a text in quotes", "path prefix \"/photos/2020/\""));
            };
            let text = text.clone();
            self.advance()?;
            return Ok(Test::Prefix(text));
        }
        if self.takes_keyword("between")? {
            const EXAMPLE: &str = "width between 640 and 1024";
            let low = self.value(EXAMPLE)?;
            if !self.takes_keyword("and")? {
                return Err(self.expected("`and`", EXAMPLE));
            }
            let high = self.value(EXAMPLE)?;
            return Ok(Test::Range(Bound::Included(low), Bound::Included(high)));
        }
        let signs = ["=", "!=", "<", "<=", ">", ">="];
        let sign = self.takes_comparison(
            &signs,
            "a comparison (=, !=, <, <=, >, >=, in, between or prefix)",
            "label = \"dog\"",
        )?;
        let value = self.value("label = \"dog\"")?;
        Ok(match sign {
            "=" => Test::Eq(value),
            "!=" => Test::Ne(value),
            "<" => Test::Range(Bound::Unbounded, Bound::Excluded(value)),
            "<=" => Test::Range(Bound::Unbounded, Bound::Included(value)),
            ">" => Test::Range(Bound::Excluded(value), Bound::Unbounded),
            _ => Test::Range(Bound::Included(value), Bound::Unbounded),
        })
    }

    fn list(&mut self) -> Result<Test, FilterError> {
        const EXAMPLE: &str = "camera in (\"X\", \"Y\")";
        self.expect("(", EXAMPLE)?;
        let mut values = Vec::new();
        if self.takes(")")? {
            return Ok(Test::In(values));
        }
        loop {
            values.push(self.value(EXAMPLE)?);
            if self.takes(")")? {
                return Ok(Test::In(values));
            }
            if !self.takes(",")? {
                return Err(self.expected("`,` or `)`", EXAMPLE));
            }
        }
    }

    fn field(&mut self, example: &str) -> Result<Field, FilterError> {
        let name = match &self.token {
            Token::Word(word) if !is_keyword(word) => word.clone(),
            Token::Quoted(name) => name.clone(),
            Token::Word(_) => {
                let what = "a field (one called like a keyword goes into backquotes: `in`)";
                return Err(self.expected(what, example));
            }
            _ => return Err(self.expected("a field", example)),
        };
        self.advance()?;
        Ok(Field::named(&name))
    }

    fn value(&mut self, example: &str) -> Result<Scalar, FilterError> {
        match self.takes_value()? {
            Some(value) => Ok(value),
            None => Err(self.expected("a text in quotes, a number, true or false", example)),
        }
    }

    fn takes_value(&mut self) -> Result<Option<Scalar>, FilterError> {
        let value = match &self.token {
            Token::Text(text) => Scalar::Text(text.clone()),
            Token::Number(number) => Scalar::Number(*number),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Scalar::Bool(true),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Scalar::Bool(false),
            _ => return Ok(None),
        };
        self.advance()?;
        Ok(Some(value))
    }

    fn takes_keyword(&mut self, keyword: &str) -> Result<bool, FilterError> {
        let found = matches!(&self.token, Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn takes(&mut self, sign: &str) -> Result<bool, FilterError> {
        let found = matches!(self.token, Token::Sign(token) if token == sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn takes_comparison(
        &mut self,
        signs: &[&'static str],
        what: &str,
        example: &str,
    ) -> Result<&'static str, FilterError> {
        match self.token {
            Token::Sign(sign) if signs.contains(&sign) => {
                self.advance()?;
                Ok(sign)
            }
            _ => Err(self.expected(what, example)),
        }
    }

    fn expect(&mut self, sign: &str, example: &str) -> Result<(), FilterError> {
        match self.takes(sign)? {
            true => Ok(()),
            false => Err(self.expected(&format!("`{sign}`"), example)),
        }
    }

    /// The error that the current token is not what has to stand here.
    fn expected(&self, what: &str, example: &str) -> FilterError {
        let found = match &self.token {
            Token::End => "the end".to_owned(),
            _ => {
                let source = &self.text[self.start..self.at];
                let short: String = source.chars().take(40).collect();
                format!("`{short}{}`", if short.len() < source.len() { "…" } else { "" })
            }
        };
        error(
            self.text,
            self.start,
            &format!("expected {what}, found {found}; for example: {example}"),
        )
    }

    fn advance(&mut self) -> Result<(), FilterError> {
        let rest = &self.text[self.at..];
        self.start = self.at + (rest.len() - rest.trim_start().len());
        let (token, length) = token(self.text, self.start)?;
        self.token = token;
        self.at = self.start + length;
        Ok(())
    }
}

fn one_or(mut parts: Vec<Filter>, many: fn(Vec<Filter>) -> Filter) -> Filter {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}

/// Whether a word has a meaning of its own.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// Whether a name can be written without backquotes.
pub(super) fn is_word(name: &str) -> bool {
    !name.is_empty() && word_length(name) == name.len() && !is_keyword(name)
}

fn word_length(text: &str) -> usize {
    let mut length = 0;
    for (at, character) in text.char_indices() {
        let starts = character.is_alphabetic() || character == '_';
        let goes_on = character.is_alphanumeric() || matches!(character, '_' | '.' | '-' | ':');
        if !(starts || (at > 0 && goes_on)) {
            break;
        }
        length = at + character.len_utf8();
    }
    length
}

/// The token at a byte, and its length in bytes.
fn token(text: &str, start: usize) -> Result<(Token, usize), FilterError> {
    let rest = &text[start..];
    let Some(first) = rest.chars().next() else { return Ok((Token::End, 0)) };
    for sign in ["!=", "<=", ">=", "=", "<", ">", "(", ")", ","] {
        if rest.starts_with(sign) {
            return Ok((Token::Sign(sign), sign.len()));
        }
    }
    match first {
        '"' | '\'' => quoted(text, start, first).map(|(text, length)| (Token::Text(text), length)),
        '`' => quoted(text, start, first).map(|(text, length)| (Token::Quoted(text), length)),
        '-' | '0'..='9' => number(text, start),
        _ => match word_length(rest) {
            0 => Err(error(
                text,
                start,
                &format!("`{first}` has no meaning here; texts go into quotes: label = \"dog\""),
            )),
            length => Ok((Token::Word(rest[..length].to_owned()), length)),
        },
    }
}

fn number(text: &str, start: usize) -> Result<(Token, usize), FilterError> {
    let rest = &text[start..];
    let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
    let mut end = usize::from(rest.starts_with('-'));
    let whole = digits(end);
    end += whole;
    if whole > 0 && rest[end..].starts_with('.') {
        let fraction = digits(end + 1);
        end += if fraction > 0 { 1 + fraction } else { 0 };
    }
    if whole > 0 && rest[end..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
        let exponent = digits(end + 1 + sign);
        end += if exponent > 0 { 1 + sign + exponent } else { 0 };
    }
    let goes_on = rest[end..].starts_with(|c: char| c.is_alphanumeric() || c == '.' || c == '_');
    match rest[..end].parse::<f64>() {
        Ok(number) if whole > 0 && !goes_on && number.is_finite() => {
            // There is one zero.
            Ok((Token::Number(if number == 0.0 { 0.0 } else { number }), end))
        }
        Ok(number) if !number.is_finite() => {
            Err(error(text, start, "the number is too large; the largest are about 1.7e308"))
        }
        _ => Err(error(
            text,
            start,
            "a number is written like 12, -0.5 or 1e6; texts go into quotes: label = \"12a\"",
        )),
    }
}

/// What stands in quotes, escapes undone, and its length in bytes with quotes.
fn quoted(text: &str, start: usize, quote: char) -> Result<(String, usize), FilterError> {
    let mut value = String::new();
    let mut characters = text[start + 1..].char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => {
                let escape = start + 1 + at;
                let (_, kind) = characters.next().unwrap_or((0, '\0'));
                value.push(match kind {
                    '\\' | '"' | '\'' | '`' => kind,
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'u' => {
                        let digits: String =
                            characters.by_ref().map(|(_, c)| c).take_while(|&c| c != '}').collect();
                        let code = digits.strip_prefix('{').filter(|code| code.len() <= 6);
                        let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
                        code.and_then(char::from_u32).ok_or_else(|| {
                            error(text, escape, "a character is written like \\u{e9}")
                        })?
                    }
                    _ => {
                        let known = "a backslash starts an escape (\\\\, \\\", \\', \\`, \\n, \\r, \\t, \
                                     \\u{e9}); write \\\\ for one backslash";
                        return Err(error(text, escape, known));
                    }
                });
            }
            _ if character == quote => return Ok((value, at + 1 + quote.len_utf8())),
            _ => value.push(character),
        }
    }
    Err(error(text, start, &format!("this {quote} is never closed")))
}

fn error(text: &str, at: usize, what: &str) -> FilterError {
    let position = text[..at].chars().count() + 1;
    FilterError { message: format!("filter, position {position}: {what}"), at: Some(at) }
}
