//! Expected tokens come from spaCy 3.8.18, `spacy.blank("en")`, through datatrove 0.10.1 `split_into_words`.

use super::*;

fn check(text: &str, expected: &str) {
    let words: Vec<&str> = of(text).iter().map(|word| &text[word.range()]).collect();
    assert_eq!(words.join(" "), expected, "{text:?}");
}

#[test]
fn splits_text_as_spacy_does() {
    check(
        "Don't go to the U.S.A. today, it's 5km away (see http://example.com/a?b=c).",
        "Do n't go to the U.S.A. today , it 's 5 km away ( see http://example.com/a?b=c ) .",
    );
    check(
        "I can't, won't and shouldn't've gone; we're gonna go at 10a.m. or 9:30.",
        "I ca n't , wo n't and should n't 've gone ; we 're gon na go at 10 a.m. or 9:30 .",
    );
    check(
        "E-mail jane.doe@example.co.uk or visit www.example.org/x-y_z!",
        "E - mail jane.doe@example.co.uk or visit www.example.org/x-y_z !",
    );
    check(
        "well-known state-of-the-art re-use 1990-2000 3-4 a--b",
        "well - known state - of - the - art re - use 1990 - 2000 3 - 4 a -- b",
    );
    check("Hello:) :-( >.< <3 xD :)) 8) (: ;-)", "Hello :) :-( >.< <3 xD :)) 8) (: ;-)");
    check("He said \"Yes.\" 'No...' “Maybe…” ‘s", "He said \" Yes . \" ' No ... ' “ Maybe … ” ‘s");
    check(
        "5€ $10.50 US$20 10% 3kg 5GB 20°C. 1,000.50 1/2",
        "5 € $ 10.50 US$ 20 10 % 3 kg 5 GB 20 ° C . 1,000.50 1/2",
    );
    check(
        "and/or w/o e.g. i.e. Mr. Smith Ph.D. vs. etc. a.m. Inc.",
        "and/or w/o e.g. i.e. Mr. Smith Ph.D. vs. etc . a.m. Inc.",
    );
    check(
        "x=y a<b c>d key:value path/to/file C++ C# #tag @user",
        "x = y a < b c > d key : value path / to / file C++ C # # tag @user",
    );
    check(
        "192.168.0.1 8.8.8.8 8.8.8.8:80/x 300.1.1.1 10.0.0.1",
        "192.168.0.1 8.8.8.8 8.8.8.8:80/x 300.1.1.1 10.0.0.1",
    );
    check(
        "foo.Bar foo.bar Foo.Bar end.Start one,two one,2",
        "foo . Bar foo.bar Foo . Bar end . Start one , two one,2",
    );
    check("...wait.. what… …… ....", "... wait .. what … … … ....");
    check(
        "« Bonjour » 「日本語」 你好，世界。 Привет, мир! 5км",
        "« Bonjour » 「 日本語 」 你好，世界 。 Привет , мир ! 5 км",
    );
    check("café naïve — dash – en-dash—em", "café naïve — dash – en - dash — em");
    check("\ta\u{a0}b\u{3000}c\n\n  d \u{1c}z", "a b c d z");
    check("😀😀 text😀 ©2020 ™", "😀 😀 text 😀 © 2020 ™");
    check("__init__ _x_ *bold* `code` [1] {a}", "_ _ init _ _ _ x _ * bold * ` code ` [ 1 ] { a }");
    check(
        "rock'n'roll y'all o'clock ma'am 'tis 'em ol'",
        "rock'n'roll y' all o'clock ma'am ' tis 'em ol'",
    );
    check(
        "+1 (555) 123-4567 +49 5+ 3+4 2*3 2^-1",
        "+1 ( 555 ) 123 - 4567 +49 5 + 3 + 4 2 * 3 2 ^ -1",
    );
    check(
        "Mr.Smith went to Washington D.C. on Jan. 5th,2020.",
        "Mr. Smith went to Washington D.C. on Jan. 5th,2020 .",
    );
    check("((nested)) \"'quoted'\" ))))", "( ( nested ) ) \" ' quoted ' \" ) ) ) )");
    check("ABC. AB. A. a. 5. %. ².", "ABC . AB . A. a. 5 . % . ² .");
    check(" : ) :\n) =( [: O.o o_O", ": ) : ) =( [: O.o o_O");
    check("¯\\(ツ)/¯ ಠ_ಠ (╯°□°）╯︵┻━┻", "¯\\(ツ)/¯ ಠ_ಠ (╯°□°）╯︵┻━┻");
    check(
        "cannot gotta lemme dont Im youre I'm I’m it’s THAT'S",
        "can not got ta lemme do nt I m you re I 'm I ’m it ’s THAT 'S",
    );
    check(
        "a.b@c.d user@host http:// ://x foo:8080 foo.com:8080 foo.com:8",
        "a.b@c.d user@host http:// : //x foo:8080 foo.com:8080 foo.com:8",
    );
    check("ﬁ ℃ ½ ① test— —test", "ﬁ ℃ ½ ① test — — test");
    check("IS_ALPH x", "IS_ALPH x");
}

#[test]
fn tells_classes_of_characters_as_python_does() {
    let is = |c: char, wanted: u16| classes(c) & wanted != 0;
    assert!(
        is('é', class::LETTER)
            && is('日', class::LETTER)
            && !is('5', class::LETTER)
            && !is('_', class::LETTER)
    );
    assert!(
        is('\u{1c}', class::SPACE) && is('\u{a0}', class::SPACE) && !is('\u{200b}', class::SPACE)
    );
    assert!(
        is('。', class::PUNCTUATION)
            && is('\u{80}', class::PUNCTUATION)
            && !is('©', class::PUNCTUATION)
    );
    assert!(is('?', class::TERMINAL) && !is('"', class::TERMINAL));
}
