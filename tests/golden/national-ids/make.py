"""Writes expected.tsv: numbers in the form of each id, and whether python-stdnum takes them.

    pip install python-stdnum==2.2 && python make.py > expected.tsv

Numbers are drawn at random, those of invalid dates and checks as well as those that stdnum calls valid.
"""

import importlib
import random

FORMS = {
    "ar_cuit": ("ar.cuit", "99-99999999-9"), "au_tfn": ("au.tfn", "999 999 999"), "be_rrn": ("be.nn", "99.99.99-999.99"),
    "br_cnpj": ("br.cnpj", "99.999.999/9999-99"), "br_cpf": ("br.cpf", "999.999.999-99"), "ca_sin": ("ca.sin", "999-999-999"),
    "ch_ahv": ("ch.ssn", "756.9999.9999.99"), "cl_rut": ("cl.rut", "99.999.999-K"), "cn_resident": ("cn.ric", "110102200D9999"),
    "cz_rc": ("cz.rc", "9D/9999"), "de_steuer_id": ("de.idnr", "99999999999"), "es_dni": ("es.dni", "99999999A"),
    "es_nie": ("es.nie", "X9999999A"), "fi_hetu": ("fi.hetu", "T99-9999"), "fr_nir": ("fr.nir", "199019999999999"),
    "gb_nhs": ("gb.nhs", "999 999 9999"), "ie_pps": ("ie.pps", "9999999A"), "il_id": ("il.idnr", "999999999"),
    "in_aadhaar": ("in_.aadhaar", "9999 9999 9999"), "in_pan": ("in_.pan", "AAAAA9999A"),
    "it_codice_fiscale": ("it.codicefiscale", "AAAAAA99A99A999A"), "kr_rrn": ("kr.rrn", "9D-9999999"),
    "mx_curp": ("mx.curp", "AAAA9DHOCAAA99"), "nl_bsn": ("nl.bsn", "999999999"), "no_fnr": ("no.fodselsnummer", "T9999999"),
    "pl_pesel": ("pl.pesel", "9D99999"), "pt_nif": ("pt.nif", "999999999"), "ro_cnp": ("ro.cnp", "19D409999"),
    "se_personnummer": ("se.personnummer", "9D-9999"), "th_pin": ("th.pin", "9-9999-99999-99-9"),
    "tr_kimlik": ("tr.tckimlik", "99999999999"), "us_ssn": ("us.ssn", "999-99-9999"), "za_id": ("za.idnr", "9D9999089"),
}
random.seed(20260101)


def draw(form):
    """9 digit, A capital, K digit or K, D the second digit of a year, month and day, T day and month."""
    month, day = random.randint(1, 12), random.randint(1, 31)
    put = {
        "9": lambda: str(random.randrange(10)), "A": lambda: random.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        "K": lambda: random.choice("0123456789K"), "T": lambda: f"{day:02}{month:02}",
        "D": lambda: f"{random.randrange(10)}{month:02}{day:02}",
    }
    return "".join(put.get(c, lambda: c)() for c in form)


def main():
    for name, (module, form) in FORMS.items():
        is_valid = importlib.import_module("stdnum." + module).is_valid
        rows = {True: [], False: []}
        for _ in range(2_000_000):
            number = draw(form)
            if name == "it_codice_fiscale" and not is_valid(number) and len(rows[False]) >= 10:
                # One in thousands is valid: put the right letter at the end and a month in the middle.
                number = number[:8] + random.choice("ABCDEHLMPRST") + f"{random.randint(1, 28):02}" + number[11:15]
                number += importlib.import_module("stdnum.it.codicefiscale").calc_check_digit(number)
            verdict = is_valid(number)
            if len(rows[verdict]) < 10:
                rows[verdict].append(number)
            if all(len(list_) == 10 for list_ in rows.values()):
                break
        for verdict, numbers in rows.items():
            for number in numbers:
                print(name, number, str(verdict).lower(), sep="\t")


main()
