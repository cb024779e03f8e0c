//! Who may ask, and about which corpora: tokens, compared in constant time and never written anywhere.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::{Error, Result};

/// The cookie that the dashboard's form leaves.
pub(super) const COOKIE_NAME: &str = "gristmill_token";
/// Bytes that a token has at least: fewer can be tried out.
const TOKEN_BYTES_MIN: usize = 16;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The token's name, for the audit log.
    pub name: String,
    /// The corpora that the token opens; all of them, without it.
    pub corpora: Option<BTreeSet<String>>,
}

impl Asker {
    /// Who asks a server without tokens.
    pub(super) fn anyone() -> Self {
        Self { name: "anyone".to_owned(), corpora: None }
    }
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Missing,
    Wrong,
    Expired,
}

impl Denied {
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Missing => "a token is missing: send `authorization: Bearer TOKEN`",
            Self::Wrong => "the token is not known here",
            Self::Expired => "the token has expired: ask whoever runs the server for another",
        }
    }
}

/// The tokens of a server.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Vec<Token>);

#[derive(Debug)]
struct Token {
    asker: Asker,
    hash: blake3::Hash,
    expires: Option<SystemTime>,
}

/// The file of `--tokens`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    token: Vec<TokenEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    name: String,
    /// BLAKE3 of the token in hexadecimal, as `b3sum` prints it.
    blake3: String,
    expires: Option<toml::value::Datetime>,
    corpora: Option<BTreeSet<String>>,
}

impl Tokens {
    /// Adds a token that opens everything and does not expire.
    ///
    /// # Errors
    /// When it is so short that it could be guessed.
    pub(crate) fn add(&mut self, token: &str) -> Result<()> {
        if token.len() < TOKEN_BYTES_MIN {
            return Err(Error::Job {
                place: "--token".to_owned(),
                message: format!(
                    "the token has {} bytes, at least {TOKEN_BYTES_MIN} are needed",
                    token.len()
                ),
                hint: Some("make one with `openssl rand -hex 32`".to_owned()),
            });
        }
        let asker = Asker { name: "token".to_owned(), corpora: None };
        self.0.push(Token { asker, hash: blake3::hash(token.as_bytes()), expires: None });
        Ok(())
    }

    /// Adds the tokens of a file, which holds their hashes only.
    ///
    /// # Errors
    /// When the file cannot be read, or names a corpus that is not in `corpora`.
    pub(crate) fn read(&mut self, path: &Path, corpora: &BTreeSet<String>) -> Result<()> {
        let place = path.display().to_string();
        let wrong = |message: String, hint: &str| Error::Job {
            place: place.clone(),
            message,
            hint: Some(hint.to_owned()),
        };
        let text = std::fs::read_to_string(path).map_err(shard::Error::io("read", path))?;
        let file: TokenFile = toml::from_str(&text).map_err(|error| {
            wrong(
                error.message().to_owned(),
                "write `[[token]]` with `name`, `blake3`, and if wanted `expires` and `corpora`",
            )
        })?;
        for entry in file.token {
            let hash = blake3::Hash::from_hex(&entry.blake3).map_err(|error| {
                wrong(format!("`blake3` of `{}`: {error}", entry.name), "print it with `b3sum`")
            })?;
            if let Some(unknown) = entry.corpora.iter().flatten().find(|it| !corpora.contains(*it))
            {
                return Err(wrong(
                    format!("`{}` may ask the corpus `{unknown}`, which is not served", entry.name),
                    &format!("served are {corpora:?}"),
                ));
            }
            let expires = entry.expires.map(|when| moment(&when)).transpose().map_err(|why| {
                wrong(
                    format!("`expires` of `{}`: {why}", entry.name),
                    "write a date and time with its offset: 2027-01-31T12:00:00Z",
                )
            })?;
            let asker = Asker { name: entry.name, corpora: entry.corpora };
            self.0.push(Token { asker, hash, expires });
        }
        Ok(())
    }

    /// Whether everybody may ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns who sent these headers.
    pub(crate) fn asker(&self, headers: &HeaderMap) -> Result<Asker, Denied> {
        if self.is_empty() {
            return Ok(Asker::anyone());
        }
        let presented = presented(headers).ok_or(Denied::Missing)?;
        self.find(&presented, SystemTime::now())
    }

    fn find(&self, presented: &str, now: SystemTime) -> Result<Asker, Denied> {
        let hash = blake3::hash(presented.as_bytes());
        // Hashes compare in constant time, and every token is looked at.
        let found = self.0.iter().fold(None, |found, token| match token.hash == hash {
            true => Some(token),
            false => found,
        });
        let token = found.ok_or(Denied::Wrong)?;
        match token.expires.is_some_and(|expires| expires <= now) {
            true => Err(Denied::Expired),
            false => Ok(token.asker.clone()),
        }
    }
}

/// The token in `authorization: Bearer`, as the password of `authorization: Basic`, or in the dashboard's cookie.
pub(super) fn presented(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        let (scheme, rest) = value.split_once(' ')?;
        return match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Some(rest.trim().to_owned()),
            "basic" => {
                let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
                Some(pair.split_once(':')?.1.to_owned())
            }
            _ => None,
        };
    }
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|it| it.split_once('='));
    let (_, token) = pairs.find(|(name, _)| name.trim() == COOKIE_NAME)?;
    Some(token.trim().to_owned())
}

/// The cookie that keeps `token` for the dashboard; nothing for one that is no header.
pub(super) fn cookie(token: &str, is_secure: bool) -> Option<HeaderValue> {
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic() && !b";,\"\\".contains(&byte));
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE_NAME}={token}; Path=/; HttpOnly; SameSite=Strict{secure}");
    is_plain.then(|| HeaderValue::from_str(&cookie).ok()).flatten()
}

fn moment(when: &toml::value::Datetime) -> Result<SystemTime, String> {
    if when.offset.is_none() {
        return Err(format!("`{when}` has no offset"));
    }
    let nanos = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(&when.to_string())
        .map_err(|error| error.to_string())?;
    let nanos = u64::try_from(nanos).map_err(|_| format!("`{when}` is before 1970"))?;
    Ok(UNIX_EPOCH + std::time::Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn headers(name: &str, value: &str) -> HeaderMap {
        let name = axum::http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    fn tokens(file: &str) -> Result<Tokens> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        std::fs::write(&path, file).unwrap();
        let mut tokens = Tokens::default();
        tokens.read(&path, &BTreeSet::from(["demo".to_owned()]))?;
        Ok(tokens)
    }

    #[test]
    fn a_token_is_read_from_every_place_where_clients_put_it() {
        // `ann:0123456789abcdef` in base64.
        for (name, value) in [
            ("authorization", "Bearer 0123456789abcdef"),
            ("authorization", "bearer 0123456789abcdef"),
            ("authorization", "Basic YW5uOjAxMjM0NTY3ODlhYmNkZWY="),
            ("cookie", "a=b; gristmill_token=0123456789abcdef; c=d"),
        ] {
            assert_eq!(presented(&headers(name, value)).unwrap(), "0123456789abcdef", "{value}");
        }
        assert_eq!(presented(&headers("authorization", "Digest x")), None);
        assert_eq!(presented(&HeaderMap::new()), None);
    }

    #[test]
    fn no_wrong_or_expired_token_opens_anything() {
        let hash = blake3::hash(b"0123456789abcdef").to_hex();
        let text = format!(
            "[[token]]\nname = 'ann'\nblake3 = '{hash}'\nexpires = 2027-01-01T01:00:00+01:00\ncorpora = ['demo']"
        );
        let tokens = tokens(&text).unwrap();
        // 2027-01-01T00:00:00Z, by `date -u -d 2027-01-01 +%s`.
        let end = UNIX_EPOCH + Duration::from_secs(1_798_761_600);
        let before = end - Duration::from_secs(1);
        let ann = Asker { name: "ann".to_owned(), corpora: Some(["demo".to_owned()].into()) };
        assert_eq!(tokens.find("0123456789abcdef", before), Ok(ann));
        assert_eq!(tokens.find("0123456789abcdef", end), Err(Denied::Expired));
        assert_eq!(tokens.find("0123456789abcdeF", before), Err(Denied::Wrong));
        assert_eq!(tokens.asker(&HeaderMap::new()), Err(Denied::Missing));
    }

    #[test]
    fn a_broken_file_of_tokens_is_refused_with_its_place() {
        let hash = blake3::hash(b"x").to_hex();
        for (text, expected) in [
            ("[[token]]\nname = 'a'", "blake3"),
            ("[[token]]\nname = 'a'\nblake3 = 'ff'", "`blake3` of `a`"),
            ("[[token]]\nname = 'a'\ntoken = 'x'", "token"),
        ] {
            let error = tokens(text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("tokens.toml"), "{error}");
        }
        let other = format!("[[token]]\nname = 'a'\nblake3 = '{hash}'\ncorpora = ['other']");
        let error = tokens(&other).unwrap_err().to_string();
        assert!(error.contains("`other`") && error.contains("demo"), "{error}");
        let date = format!("[[token]]\nname = 'a'\nblake3 = '{hash}'\nexpires = 2027-01-01");
        assert!(tokens(&date).unwrap_err().to_string().contains("no offset"));
    }

    #[test]
    fn a_short_token_is_refused() {
        let error = Tokens::default().add("secret").unwrap_err().to_string();
        assert!(error.contains("6 bytes, at least 16"), "{error}");
    }
}
