//! Templates that carry words of the article, by their English names, and the parser functions that need no wiki.
//!
//! Templates are programs that only their wiki can run. Those here are called inside sentences, and a sentence without them
//! lacks a word: names in other languages, quantities, dates, signs. Everything else (infoboxes, citations, navigation) gives nothing.
//!
//! Source: documentation pages of these templates on the English Wikipedia.

/// Returns what the template `pieces[0]` with the arguments after it gives on the page called `title`; `None` when it is not known.
pub(super) fn expand(pieces: &[String], title: &str) -> Option<String> {
    let head = pieces[0].trim();
    if let Some((function, first)) = head.split_once(':') {
        let function = function.trim().to_ascii_lowercase();
        if let Some(text) = parser_function(&function, first.trim(), &pieces[1..]) {
            return Some(text);
        }
    }
    let arguments = Arguments(&pieces[1..]);
    let name = normal(head);
    if let Some(sign) = sign(&name) {
        return Some(sign.to_owned());
    }
    if pieces.len() == 1
        && let Some(value) = variable(head, title)
    {
        return Some(value);
    }
    words(&name, arguments)
}

/// Lower case, blanks for underscores, without the namespace.
fn normal(head: &str) -> String {
    let name = head.replace('_', " ").to_lowercase();
    let name = name.trim_start_matches(':').trim();
    name.strip_prefix("template:").unwrap_or(name).trim().to_owned()
}

#[derive(Clone, Copy)]
struct Arguments<'a>(&'a [String]);

impl<'a> Arguments<'a> {
    /// The unnamed arguments with those called by their number, trimmed.
    fn at(self, position: usize) -> Option<&'a str> {
        let number = position.to_string();
        if let Some(value) = self.named(&number) {
            return Some(value);
        }
        self.unnamed().nth(position - 1)
    }

    fn unnamed(self) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(|piece| name_of(piece).is_none()).map(|piece| piece.trim())
    }

    fn named(self, name: &str) -> Option<&'a str> {
        let value = |piece: &'a String| {
            let (key, value) = piece.split_once('=')?;
            (key.trim() == name).then_some(value.trim())
        };
        self.0.iter().rev().find_map(value)
    }

    /// The argument at `position` when it is there and not empty.
    fn filled(self, position: usize) -> Option<&'a str> {
        self.at(position).filter(|value| !value.is_empty())
    }

    fn join(self, separator: &str) -> String {
        let values: Vec<&str> = self.unnamed().filter(|value| !value.is_empty()).collect();
        values.join(separator)
    }
}

/// The name of an argument; a `=` inside a link or tag names nothing.
fn name_of(piece: &str) -> Option<&str> {
    let (name, _) = piece.split_once('=')?;
    (!name.contains(['[', '<', '{', '"', '\u{7f}'])).then_some(name)
}

/// Templates that stand for signs, those of table markup among them.
fn sign(name: &str) -> Option<&'static str> {
    Some(match name {
        "!" => "|",
        "!!" => "||",
        "=" => "=",
        "(!" => "{|",
        "!)" => "|}",
        "!-" => "|-",
        "(" => "&#123;",
        ")" => "&#125;",
        "((" => "&#123;&#123;",
        "))" => "&#125;&#125;",
        "*" | "•" | "bull" | "bullet" => " •",
        "·" | "dot" | "middot" | "int dot" | "·w" | "•w" => " ·",
        "-" | "ndash" | "en dash" | "endash" | "–" => "–",
        "snd" | "spnd" | "spaced ndash" | "spaced en dash" | "dash" => " – ",
        "--" | "mdash" | "em dash" | "emdash" | "—" => "—",
        "spaced mdash" | "smd" => " — ",
        "'" | "apostrophe" => "'",
        "' \"" => "' \"",
        "\" '" => "\" '",
        "spaces" | "sp" | "nbsp" | "space" | "pad" | "thinsp" | "hair space" => " ",
        "br" | "crlf" | "break" | "clear" | "clr" | "-br" => "\n",
        "shy" | "zwsp" | "wbr" | "zwj" | "zwnj" => "",
        "pi" => "π",
        "asterisk" => "*",
        "hash-tag" => "#",
        "yes" | "yes2" => "Yes",
        "no" | "no2" => "No",
        "ad" => "AD",
        "degree" | "deg" => "°",
        "°c" => "°C",
        "sharp" | "music sharp" => "♯",
        "flat" => "♭",
        "euro" => "€",
        _ => return None,
    })
}

/// Magic words without a colon.
fn variable(head: &str, title: &str) -> Option<String> {
    Some(match head {
        "PAGENAME" | "PAGENAMEE" | "FULLPAGENAME" | "SUBPAGENAME" | "BASEPAGENAME"
        | "ROOTPAGENAME" => title.to_owned(),
        // What depends on the wiki or the hour: nothing, and not a template that is missed.
        "NAMESPACE" | "NAMESPACENUMBER" | "TALKSPACE" | "SITENAME" | "SERVER"
        | "NUMBEROFARTICLES" | "NUMBEROFPAGES" | "NUMBEROFUSERS" | "NUMBEROFFILES"
        | "NUMBEROFEDITS" | "NUMBEROFADMINS" | "CURRENTYEAR" | "CURRENTMONTH"
        | "CURRENTMONTHNAME" | "CURRENTDAY" | "CURRENTDAYNAME" | "CURRENTTIME"
        | "CURRENTTIMESTAMP" | "CURRENTWEEK" | "LOCALYEAR" | "LOCALMONTH" | "LOCALDAY"
        | "LOCALTIME" | "REVISIONID" | "REVISIONTIMESTAMP" => String::new(),
        _ => return None,
    })
}

/// What comes of `{{function:first|…}}`; `None` where `function` is not one.
fn parser_function(function: &str, first: &str, rest: &[String]) -> Option<String> {
    let argument = |index: usize| rest.get(index).map(|piece| piece.trim()).unwrap_or_default();
    Some(match function {
        "lc" => first.to_lowercase(),
        "uc" => first.to_uppercase(),
        "lcfirst" => first_letter(first, str::to_lowercase),
        "ucfirst" => first_letter(first, str::to_uppercase),
        "formatnum" => first.to_owned(),
        "grammar" => argument(0).to_owned(),
        "plural" => {
            let is_one = first == "1";
            let forms = rest.len();
            argument(if is_one || forms < 2 { 0 } else { forms - 1 }).to_owned()
        }
        "#if" => argument(usize::from(first.is_empty())).to_owned(),
        "#ifeq" => argument(if first == argument(0) { 1 } else { 2 }).to_owned(),
        "#switch" => switch(first, rest),
        "#tag" => match first {
            "ref" | "references" => String::new(),
            _ => argument(0).to_owned(),
        },
        "int" | "ns" | "nse" | "defaultsort" | "displaytitle" | "sortierung" | "#invoke"
        | "#expr" | "#ifexpr" | "#ifexist" | "#iferror" | "#time" | "#timel" | "#property"
        | "#statements" | "#related" | "#coordinates" | "#seo" | "#section" | "#lst" | "#lsth"
        | "#babel" | "#language" | "#titleparts" | "fullurl" | "localurl" | "canonicalurl"
        | "filepath" | "urlencode" | "anchorencode" | "msgnw" | "padleft" | "padright"
        | "pagesincategory" | "talkpagename" | "protectionlevel" | "numberingroup" => String::new(),
        _ => return None,
    })
}

/// Returns the value of the case equal to `key`, or the default.
fn switch(key: &str, cases: &[String]) -> String {
    let mut is_found = false;
    let mut default = "";
    for case in cases {
        match case.split_once('=') {
            Some((name, value)) => {
                if is_found || name.trim() == key {
                    return value.trim().to_owned();
                }
                if name.trim() == "#default" {
                    default = value.trim();
                }
            }
            // Falls through to the next case with a value; the last one is the default.
            None => {
                is_found |= case.trim() == key;
                default = case.trim();
            }
        }
    }
    default.to_owned()
}

fn first_letter(text: &str, change: fn(&str) -> String) -> String {
    let end = text.chars().next().map_or(0, char::len_utf8);
    change(&text[..end]) + &text[end..]
}

/// The templates that give words.
fn words(name: &str, arguments: Arguments<'_>) -> Option<String> {
    let first = || arguments.at(1).unwrap_or_default().to_owned();
    let last = || arguments.unnamed().last().unwrap_or_default().to_owned();
    Some(match name {
        // The text that they style.
        "nowrap" | "nobr" | "nobreak" | "j" | "small" | "smaller" | "big" | "larger" | "large"
        | "resize" | "nobold" | "noitalic" | "normal" | "bold" | "strong" | "em" | "italic"
        | "ital" | "allcaps" | "sc" | "smallcaps" | "small caps" | "sup" | "sub" | "abbr"
        | "abbrv" | "tooltip" | "unicode" | "uni" | "okina" | "mono" | "code" | "kbd" | "samp"
        | "var" | "tt" | "codes" | "mvar" | "math" | "center" | "c." | "plainlink"
        | "underline" | "u" | "strikethrough" | "anchored" | "visible anchor" | "vanchor"
        | "script" | "polytonic" | "hebrew" | "arabic" | "semantic" | "angbr" | "angle bracket"
        | "grapheme" | "not a typo" | "typo" | "proper name" | "as written" | "linktext"
        | "ill" | "interlanguage link" | "link-interwiki" | "flag" | "flagcountry" | "flagu"
        | "country" | "iso 639 name" | "nts" | "formatnum" | "number" | "num" | "hs"
        | "keypress" | "key press" | "button" | "music" | "quote" | "cquote" | "blockquote"
        | "quotation" | "quote box" | "rquote" | "pull quote" | "bquote" | "poem" | "poemquote"
        | "verse" | "centered" | "align" | "gray" | "grey" | "em dash list" | "dfn" | "term"
        | "defn" | "gloss" | "glossary link" | "nihongo core" | "ship" | "screen reader-only"
        | "text" | "1x" | "trim" | "ifempty" | "if empty" => content(name, arguments),
        // Their last argument is the text.
        "lang" | "language" | "fontcolor" | "font color" | "color" | "colour" | "font"
        | "hlight" | "transl" | "transliteration" | "translit" | "rtl-lang" | "wikt-lang"
        | "langx" | "zh-lang" | "span" => last(),
        "stylenowrap" | "stylespan" | "align2" => last(),
        // Their arguments are a list.
        "ubl" | "ublist" | "unbulleted list" | "plainlist" | "plain list" | "bulleted list"
        | "ordered list" | "flatlist" | "collapsible list" | "blist" | "startplainlist" => {
            list(arguments)
        }
        "hlist" | "hlist2" | "comma separated entries" | "cslist" | "csv" => arguments.join(", "),
        "ruby" | "ruby-ja" => pair(arguments.at(1), arguments.at(2)),
        "nihongo" | "nihongo2" | "nihongo3" | "nihongo foot" | "korean" => nihongo(name, arguments),
        "zh" | "chinese" | "lang-zh" => named_values(arguments),
        "convert" | "cvt" | "convert/2" => convert(arguments),
        "val" => {
            let unit = arguments.named("u").or_else(|| arguments.named("ul")).unwrap_or_default();
            let error = arguments.at(2).map(|error| format!("±{error}")).unwrap_or_default();
            format!("{}{error} {unit}", first()).trim_end().to_owned()
        }
        "gaps" => arguments.join(""),
        "frac" | "fraction" | "sfrac" => fraction(arguments),
        "chem" | "chem2" => arguments.join(""),
        "sortname" => {
            let name = [arguments.at(1), arguments.at(2)];
            name.into_iter().flatten().collect::<Vec<_>>().join(" ")
        }
        "dts" | "start date" | "end date" | "film date" | "birth date" | "death date" | "bda"
        | "birth date and age" | "death date and age" | "dob" | "birth-date" | "death-date"
        | "birth-date and age" | "death-date and age" | "start date and age" | "date" | "datum"
        | "release date" | "launch date" | "birth year and age" | "death year and age"
        | "formatdate" | "birth date text" | "opening date" | "start-date" | "end-date" => {
            date(name, arguments)
        }
        "circa" | "ca" | "c" => span_of_years("c. ", arguments),
        "floruit" | "fl" | "fl." => span_of_years("fl. ", arguments),
        "reign" | "r." => span_of_years("r. ", arguments),
        "as of" | "asof" => format!("As of {}", arguments.join(" ")),
        "since" => format!("since {}", arguments.join(" ")),
        "us$" | "usd" | "us dollar" => format!("US${}", first()),
        "£" | "gbp" | "pound sterling" => format!("£{}", first()),
        "€" | "eur" => format!("€{}", first()),
        "inr" | "₹" | "indian rupee" => format!("₹{}", first()),
        "jpy" | "¥" | "yen" | "cny" => format!("¥{}", first()),
        "a$" | "aud" => format!("A${}", first()),
        "ipa" | "ipa-all" | "api" | "ipa-en" => last(),
        "ipac-en" | "respell" | "pronunciation" => respell(name, arguments),
        "unichar" => format!("U+{}", first()),
        "url" | "official url" => arguments.filled(2).or(arguments.at(1)).map(str::to_owned)?,
        "sic" => arguments
            .filled(1)
            .map(|text| format!("{text} [sic]"))
            .unwrap_or_else(|| "[sic]".to_owned()),
        "baseball year" | "by" | "nhl year" | "nfl year" | "nba year" | "mlb year" | "scy" => {
            first()
        }
        _ if name.starts_with("lang-") || name.starts_with("ipa-") => {
            arguments.filled(1).map(str::to_owned)?
        }
        _ => return None,
    })
}

fn content(name: &str, arguments: Arguments<'_>) -> String {
    let text = ["text", "quote", "content"].into_iter().find_map(|key| arguments.named(key));
    let text = text.or_else(|| match name {
        "glossary link" | "keypress" | "key press" => None,
        _ => arguments.at(1),
    });
    let text = text.map_or_else(|| arguments.join("+"), str::to_owned);
    let is_quote = name.contains("quot") || name == "poem" || name == "verse";
    if is_quote && !text.is_empty() {
        let by = ["author", "sign", "by"].into_iter().find_map(|key| arguments.named(key));
        let by = by.or_else(|| arguments.filled(2));
        let by = by.map(|by| format!("\n— {by}")).unwrap_or_default();
        return format!("\n\n{text}{by}\n\n");
    }
    text
}

fn list(arguments: Arguments<'_>) -> String {
    let items = arguments.unnamed().filter(|item| !item.is_empty());
    let items: Vec<String> = items
        .map(
            |item| if item.starts_with(['*', '#']) { item.to_owned() } else { format!("* {item}") },
        )
        .collect();
    if items.is_empty() { String::new() } else { format!("\n{}\n", items.join("\n")) }
}

fn pair(first: Option<&str>, second: Option<&str>) -> String {
    let first = first.unwrap_or_default();
    match second.filter(|second| !second.is_empty()) {
        Some(second) => format!("{first} ({second})"),
        None => first.to_owned(),
    }
}

/// `{{nihongo|English|kanji|romaji|extra}}` as the English Wikipedia shows it.
fn nihongo(name: &str, arguments: Arguments<'_>) -> String {
    let [english, kanji, romaji, extra] = [1, 2, 3, 4].map(|index| arguments.filled(index));
    let (shown, others) = match name {
        "nihongo2" => return english.unwrap_or_default().to_owned(),
        "nihongo3" => (romaji, [kanji, english, extra]),
        _ => (english, [kanji, romaji, extra]),
    };
    let others: Vec<&str> = others.into_iter().flatten().collect();
    let inside = others.join(", ");
    match shown {
        Some(shown) if inside.is_empty() => shown.to_owned(),
        Some(shown) => format!("{shown} ({inside})"),
        None => inside,
    }
}

/// The values of `{{zh|s=…|t=…|p=…}}`.
fn named_values(arguments: Arguments<'_>) -> String {
    let keys = ["c", "s", "t", "p", "w", "j", "l"];
    let values: Vec<&str> = keys
        .into_iter()
        .filter_map(|key| arguments.named(key))
        .filter(|value| !value.is_empty())
        .collect();
    if values.is_empty() { arguments.join("; ") } else { values.join("; ") }
}

/// `{{convert|5|km|mi}}` as the quantity that was measured: `5 km`; ranges and two units too.
fn convert(arguments: Arguments<'_>) -> String {
    let values: Vec<&str> = arguments.unnamed().collect();
    let is_number = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_digit() || "-−+.–".contains(c))
            && text.chars().any(|c| c.is_ascii_digit())
    };
    let is_joint = |text: &str| {
        matches!(
            text,
            "-" | "–"
                | "to"
                | "and"
                | "x"
                | "by"
                | "or"
                | "to(-)"
                | "×"
                | "xx"
                | "&"
                | "and(-)"
                | "+/-"
                | "±"
        )
    };
    let mut out = String::new();
    let mut after_unit = false;
    for (index, value) in values.iter().enumerate() {
        if is_number(value) && (!after_unit || index == 2) {
            if !out.is_empty() && !out.ends_with(['–', ' ']) {
                out.push(' ');
            }
            out.push_str(value);
            after_unit = false;
        } else if is_joint(value) && !after_unit {
            match *value {
                "-" | "–" | "to(-)" | "and(-)" => out.push('–'),
                "x" | "xx" | "×" => out.push_str(" × "),
                joint => {
                    out.push(' ');
                    out.push_str(joint);
                    out.push(' ');
                }
            }
        } else if !after_unit {
            out.push(' ');
            out.push_str(unit(value));
            after_unit = true;
            // `5|ft|6|in`: a second number belongs to the quantity.
            if !values.get(index + 1).is_some_and(|next| {
                is_number(next) && values.get(index + 2).is_some_and(|unit| !is_number(unit))
            }) {
                break;
            }
        }
    }
    out.trim().to_owned()
}

/// The symbol of a unit as `{{convert}}` shows it, where it differs from its code.
fn unit(code: &str) -> &str {
    match code {
        "sqmi" => "sq mi",
        "sqft" => "sq ft",
        "sqin" => "sq in",
        "sqyd" => "sq yd",
        "cuft" => "cu ft",
        "cuin" => "cu in",
        "cumi" => "cu mi",
        "km2" | "sqkm" => "km²",
        "m2" | "sqm" => "m²",
        "cm2" => "cm²",
        "mm2" => "mm²",
        "km3" => "km³",
        "m3" => "m³",
        "cm3" | "cc" => "cm³",
        "C" | "°C" | "degC" => "°C",
        "F" | "°F" | "degF" => "°F",
        "kph" | "km/h" => "km/h",
        "m3/s" => "m³/s",
        "cuft/s" => "cu ft/s",
        "PD/sqkm" | "/km2" | "/sqkm" => "/km²",
        "PD/sqmi" | "/sqmi" => "/sq mi",
        "lbf" => "lb",
        other => other,
    }
}

fn fraction(arguments: Arguments<'_>) -> String {
    let values: Vec<&str> = arguments.unnamed().collect();
    match values.as_slice() {
        [bottom] => format!("1/{bottom}"),
        [top, bottom] => format!("{top}/{bottom}"),
        [whole, top, bottom, ..] => format!("{whole} {top}/{bottom}"),
        [] => String::new(),
    }
}

/// A date of up to three numbers, year first, or the text that stands there.
fn date(name: &str, arguments: Arguments<'_>) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    // Those of a death and of an age give the other date after it.
    let n_fields = if name.contains("year") { 1 } else { 3 };
    let fields: Vec<&str> =
        arguments.unnamed().filter(|field| !field.is_empty()).take(n_fields).collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<usize>().ok());
    let month = number(1).and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    match (number(0), month, number(2)) {
        (Some(year), Some(month), Some(day)) if day > 0 => format!("{day} {month} {year}"),
        (Some(year), Some(month), None) if fields.len() == 2 => format!("{month} {year}"),
        _ => fields.join(" "),
    }
}

fn span_of_years(prefix: &str, arguments: Arguments<'_>) -> String {
    let years: Vec<&str> = arguments.unnamed().filter(|year| !year.is_empty()).collect();
    if years.is_empty() { String::new() } else { format!("{prefix}{}", years.join("–")) }
}

/// Pronunciations whose sounds are one argument each.
fn respell(name: &str, arguments: Arguments<'_>) -> String {
    let sounds = arguments.join(if name == "respell" { "-" } else { "" });
    if name == "ipac-en" && !sounds.is_empty() { format!("/{sounds}/") } else { sounds }
}
