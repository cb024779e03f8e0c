use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::*;
use crate::modifier::tests::modified;

mod sample;

fn check(text: &str, expected: &str) {
    check_with("", text, expected);
}

fn check_with(config: &str, text: &str, expected: &str) {
    assert_eq!(modified(&KIND, config, &[text]).text.value(0), expected, "{text:?}");
}

#[test]
fn masks_email_addresses() {
    check("write to jane.doe+x@mail.example.co.uk, or not", "write to <EMAIL>, or not");
    check("<a@b.org>; a@b.org.", "<<EMAIL>>; <EMAIL>.");
    check("mailto:jo.o'neil@b.org?subject=x", "mailto:<EMAIL>?subject=x");
    check("Jörg Müller <jörg@müller.de>", "Jörg Müller <<EMAIL>>");
    check("données\u{a0}a@b.org\u{2003}", "données\u{a0}<EMAIL>\u{2003}");
    for text in [
        "logo@2x.png, @param x, a @ b, user@localhost",
        "git@host.org:user/repository and ssh://git@host.org/x",
        "https://user:word@host.org/path",
        "getty@tty1.service, a@b.c",
    ] {
        check(text, text);
    }
}

#[test]
fn masks_public_ip_addresses() {
    check(
        "from 8.8.4.4 and http://93.184.216.34:80/x",
        "from <IP_ADDRESS> and http://<IP_ADDRESS>:80/x",
    );
    check("2606:2800:220:1:248:1893:25c8:1946 or 2a00:1450::200e", "<IP_ADDRESS> or <IP_ADDRESS>");
    // Private, loopback, documentation, versions, headings, identifiers, times.
    for text in [
        "10.0.0.1 127.0.0.1 192.168.1.1 203.0.113.7",
        "JDK version 17.0.4.1",
        "10.2466/pr0.1976.39.2.601",
        "1.3.6.1.4.1 is an identifier",
        "see section 3.20.1.1",
        "4.2.1.1 Overview",
        "Runtime Tools 2.11.2.1",
        "The address.\n\n9.2.1.1. Keys",
        "13-Jun-2003::12:01:15",
        "256.1.1.1 1.2.3.04",
        "::1 12:30:45 a::b std::io 2001:db8::1 fe80::1",
    ] {
        check(text, text);
    }
    check_with("private_addresses = true", "192.168.1.1 fe80::1", "<IP_ADDRESS> <IP_ADDRESS>");
}

#[test]
fn masks_phone_numbers_by_their_form() {
    check("call (425) 882-9090 or +1 212-555-0142 x12", "call <PHONE> or <PHONE>");
    check(
        "in London +44 (0)20 7946 0958, in Berlin +49 (30) 901820",
        "in London <PHONE>, in Berlin <PHONE>",
    );
    check("à Paris 01 84 17 61 18, in Köln (0221) 9123456", "à Paris <PHONE>, in Köln <PHONE>");
    for text in [
        "4258829090",
        "ISBN 978-0-306-40615-7",
        "2024-05-01 1990-2000",
        "+3 to +5",
        "(123) 456-7890",
        "+1 123-456-7890",
        "f(2125550142)",
        "<Buffer 01 02 03 04 05> 66 00 68 00 71 00",
        "724 768 810 849 2887 923",
    ] {
        check(text, text);
    }
}

#[test]
fn masks_other_phone_numbers_behind_a_word() {
    check("Tel.: 467 3395\nFax 9498777106", "Tel.: <PHONE>\nFax <PHONE>");
    check("can you call me on 9472 7916?", "can you call me on <PHONE>?");
    check("416 60 039 office", "<PHONE> office");
    for text in ["467 3395", "call 94987771", "phone made 2020-12-24", "phone 1999-2004"] {
        check(text, text);
    }
}

#[test]
fn masks_cards_that_pass_luhn_and_look_like_cards() {
    // The networks' published test numbers.
    check("4111 1111 1111 1111, 3782-822463-10005", "<CARD>, <CARD>");
    check("my credit card 5555555555554444", "my credit card <CARD>");
    for text in ["4111 1111 1111 1112", "post 5555555555554444", "9111 1111 1111 1111"] {
        check(text, text);
    }
}

#[test]
fn masks_ibans_that_pass_mod_97() {
    // Examples of the SWIFT registry.
    check("IBAN GB29 NWBK 6016 1331 9268 19 please", "IBAN <IBAN> please");
    check("DE89370400440532013000, NO9386011117947", "<IBAN>, <IBAN>");
    check("iban gb29nwbk60161331926819", "iban <IBAN>");
    check("DE89370400440532013001", "DE89370400440532013001");
}

#[test]
fn masks_national_ids() {
    // The Italian and Spanish ministries' and python-stdnum's own examples.
    check("SSN 536-90-4399; 536904399", "SSN <NATIONAL_ID>; <NATIONAL_ID>");
    check("DNI 54362315-K, NIE X-2482300-W", "DNI <NATIONAL_ID>, NIE <NATIONAL_ID>");
    check("c.f. RCCMNL83S18D969H", "c.f. <NATIONAL_ID>");
    check("PESEL 44051401359", "PESEL <NATIONAL_ID>");
    for text in ["nr. 44051401359", "536904399", "000-12-3456", "54362315-L", "RCCMNL83S18D969G"] {
        check(text, text);
    }
    check_with("national_ids = ['es_dni']", "536-90-4399 54362315K", "536-90-4399 <NATIONAL_ID>");
}

#[test]
fn masks_keys_and_secrets() {
    // Made up, in the form that each service documents.
    for text in [
        "AKIAQ3EGRIUJ2VSTKW5N",
        "ghp_Zk3vQ9xW2mLr8TnB5yHc7JdF4sGa6PoE1uVi",
        "xoxb-712345098761-Kq8ZtRw3NvX7bLpY",
        "AIzaSyD9tK2mQ7vXcR4nLbW8eHjP0sZfGuYo1iT",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    ] {
        check(&format!("x = \"{text}\"\n"), "x = \"<KEY>\"\n");
    }
    check("API_KEY = 'q8Zt4Rw3NvX7bLpYc2Md'", "API_KEY = '<KEY>'");
    check("{\"client_secret\": \"q8Zt4Rw3NvX7bLpYc2Md\"}", "{\"client_secret\": \"<KEY>\"}");
    let block = format!(
        "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
        "MIIEpAIB".repeat(20)
    );
    check(&format!("a\n{block}\nb"), "a\n<KEY>\nb");
    for text in [
        "AKIAIOSFODNN7EXAMPLE",
        "password = getpass.getpass(prompt1)",
        "token: a_word_with_words_in_it",
        "secret = os.environ['API_KEY_2024_01']",
        "password = 'xxxxxxxxxxxxxxxxxxxx1234'",
        "ghp_short",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "the token 0123456789abcdefghijk",
    ] {
        check(text, text);
    }
}

#[test]
fn says_where_and_by_which_rule() {
    let modified =
        modified(&KIND, "email = '[mail]'\nphone = ''", &["none", "ä a@b.org (425) 882-9090"]);
    let edit = Edit { row: 1, start: 3, end: 10, rule: "email", replacement: "[mail]".to_owned() };
    assert_eq!(modified.edits, [edit]);
    assert_eq!(modified.text.value(1), "ä [mail] (425) 882-9090");
}

#[test]
fn drops_documents_with_more_hits_than_allowed() {
    let modified = modified(&KIND, "max_hits = 1", &["a@b.org", "a@b.org c@d.org"]);
    let reasons = modified.reasons.unwrap();
    assert!(reasons.is_null(0));
    assert_eq!(reasons.value(1), "too_many_hits");
    assert_eq!(modified.text.value(1), "a@b.org c@d.org");
}

#[test]
fn fakes_are_the_same_for_the_same_value_and_nobodys() {
    let texts = [
        "Jane@b.org jane@b.org joe@b.org",
        "93.184.216.34 is 93.184.216.34, 2606:2800:220:1:248:1893:25c8:1946",
        "(425) 882-9090 and 425-882-9090 and +49 30 901820",
        "4111 1111 1111 1111 and DE89 3704 0044 0532 0130 00",
        "SSN 536-90-4399, DNI 54362315K, GITHUB ghp_Zk3vQ9xW2mLr8TnB5yHc7JdF4sGa6PoE1uVi",
    ];
    let once = modified(&KIND, "mode = 'fake'\nseed = 7", &texts);
    let [mail, ip, phone, account, id] = [0, 1, 2, 3, 4].map(|row| once.text.value(row).to_owned());
    let words: Vec<&str> = mail.split(' ').collect();
    assert_eq!(words[0], words[1]);
    assert_ne!(words[0], words[2]);
    assert!(words.iter().all(|word| word.contains("@example.")), "{mail}");
    let first: std::net::Ipv4Addr = ip.split(' ').next().unwrap().parse().unwrap();
    assert!(first.is_documentation() && ip.contains(&format!("is {first}, 2001:db8:")), "{ip}");
    assert_eq!(phone.matches("555-01").count(), 2, "{phone}");
    assert!(phone.contains("+44 1632 960"), "{phone}");
    assert!(account.starts_with("9999 ") && account.contains("and XX"), "{account}");
    assert!(
        !id.contains("536-90-4399") && !id.contains("54362315K") && id.ends_with("EXAMPLE"),
        "{id}"
    );
    // A second time changes nothing: what is made up is known as such.
    let again = modified(&KIND, "mode = 'fake'\nseed = 7", &[&mail, &ip, &phone, &account, &id]);
    assert_eq!(
        (0..5).map(|row| again.text.value(row)).collect::<Vec<_>>(),
        [mail, ip, phone, account, id]
    );
    let other = modified(&KIND, "mode = 'fake'\nseed = 8", &texts);
    assert_ne!(other.text.value(0), once.text.value(0), "another seed, another name");
}

#[test]
fn refuses_unknown_profiles_and_modes() {
    for (config, expected) in [("profile = 'presidio'", "`dolma`"), ("mode = 'hide'", "`fake`")] {
        let error = (KIND.build)(&config.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("hint:"), "{error}");
    }
}

#[test]
fn finds_what_datatrove_and_dolma_find() {
    // Texts and replacements of `PIIFormatter` and of the tagger, run on these strings.
    let datatrove =
        |text: &str, expected: &str| check_with("profile = 'datatrove'", text, expected);
    datatrove(
        "a@b.org, c@d.org, e@f.org at 8.8.8.8 and 10.0.0.1, JDK 17.0.4.1",
        "email@example.com, firstname.lastname@example.org, email@example.com at 22.214.171.124 and 10.0.0.1, JDK 126.96.36.199",
    );
    let dolma = |text: &str, expected: &str| check_with("profile = 'dolma'", text, expected);
    dolma("write a@b.org now", "write |||EMAIL_ADDRESS||| now");
    dolma("call (425) 882-9090 or 1.2.3.4", "call |||PHONE_NUMBER|||  or  |||IP_ADDRESS||| ");
}
