"""Texts of lists that are stored in English, and their form in the reader's language.

The console checks and loads a list in the background, for readers of any language. What the
database refuses is stored as its constraint names it: by the rule, which reads like praise.
"""

from collections.abc import Mapping
from typing import Final

from dispatcher.core.language import N_, _
from dispatcher.core.stored_texts import stored_text
from dispatcher.lists.header import COLUMNS, PARAM

# Reasons and notes with values, as core.number and this package write them.
LIST_TEXTS = (
    N_(
        "The list cannot be written to a temporary folder ({why}): make room there, or set TMPDIR"
        " for the service."
    ),
    N_(" As a guess, {names}."),
    N_("(column {value}, without a name)"),
    N_("--column takes pairs such as recipient=手机号 or param_1=name, and not {pair}"),
    N_("Hidden in the sheet, and read: {names}."),
    N_("Messages with a send_at that is past: {count}."),
    N_(
        "Template {name} is not defined here, and its lines differ in their number of variables:"
        " most have {variables}, others: {count} (line {lines})."
    ),
    N_("Merged in the sheet: {ranges}. Only the first cell of each has its text."),
    N_("Not used: {names}."),
    N_("Skipped before the header: line {lines}."),
    N_("The text is read as {name}, such as “{sample}”; --encoding names another encoding."),
    N_("a quote opened in line {first} {ends}: {count} line was read as one cell"),
    N_("a quote opened in line {first} {ends}: {count} lines were read as one cell"),
    N_(
        "a quote opened in line {line} is closed only in line {last}: {lines} lines were read as"
        " one cell"
    ),
    N_("after +{country_code} it has what is dialled within the country only: leave that out"),
    N_("after 86 come {value} digits, and a mobile number of mainland China has 11"),
    N_("campaign {name} is cancelled for good: name another one."),
    N_(
        "has an unknown column {names}: leave them out with --ignore-others, or say what they"
        " are with --column"
    ),
    N_("column {value} has no name in the header, and here it is not empty"),
    N_("has not the column that --column names for {name}"),
    N_("has param_{last}, and no param_{missed}"),
    N_("has two columns for {column}: {other} and {name}"),
    N_(
        "has unknown columns {names}: leave them out with --ignore-others, or say what they are"
        " with --column"
    ),
    N_("is closed only in line {value}"),
    N_("it has no area code after +{country_code}, or a digit is missing"),
    N_("it has more than {max_line_characters} characters"),
    N_("it has more than {max_text_characters} characters"),
    N_("it has {cells} cells, and the header has {width}"),
    N_(
        "it has {number} digits, and a mobile number of mainland China has 11: is a digit wrong,"
        " or + and the code of its country missing?"
    ),
    N_("it holds the error {value}"),
    N_("it is a number in the format {form}: format the column as text"),
    N_("it is not {encoding} text"),
    N_("it is too long for a number of +{country_code}"),
    N_("it is too long: {digits} digits after +"),
    N_("it is too short for a number of +{country_code}"),
    N_("it is too short: {digits} digits after +"),
    N_("it is too short: {number} digits"),
    N_("it looks like +{code}…: the + is missing"),
    N_(
        "line {line} of {path} holds a number, and stands before the header in line {line2}:"
        " move it below, or remove it."
    ),
    N_("name a campaign with --campaign: {name} was used often."),
    N_("no number of +{country_code} has so many digits: is one missing, or one too many?"),
    N_("no number of mainland China has {national} digits and begins like this after +86"),
    N_("param_{value} is empty, and one after it is not"),
    N_("params has more than {max_variables} variables"),
    N_("recipient: {reason}"),
    N_(
        "refused lines cannot be written to {path}: {strerror}. Name another place with"
        " --rejects. Lines before the first refused one may be in already."
    ),
    N_(
        "the header of {path} has no column recipient (phone, 手机号): say which one it is, such as"
        " --column recipient=客户电话."
    ),
    N_(
        "the header of {path} {error}. It names recipient (phone, 手机号) and template_id, and may"
        " name param_1, param_2, ... (变量1) or params, and app, sender, signature, priority,"
        " send_at, expires_at, idempotency_key, reference, campaign."
    ),
    N_(
        "the text of {path} is not UTF-8, and not clearly anything else: save it as UTF-8, or"
        " give its encoding with --encoding.{guesses}"
    ),
    N_(
        "the text of {path} may be UTF-8, such as “{sample}”, or GB18030, such as “{other}”: say"
        " which with --encoding utf-8 or --encoding gb18030."
    ),
    N_("there is no encoding {name}."),
    N_("{file} is empty: it has a header and no lines."),
    N_("{file} is in already, since {finished_at}: nothing was enqueued."),
    N_(
        "{lines} of {left} messages of {file} are in already, since {started_at} from {name}:"
        " nothing was enqueued."
    ),
    N_("{names} and {count} more"),
    N_("Lines of it were refused, {count}, each with its reason in {rejects}."),
    N_(
        "The variables of {count} of those that are in are deleted by now (WIPE_PARAMS_AFTER): all"
        " else was compared. A message with another --reference is another one."
    ),
    N_("{name} has more than {most} characters"),
    N_("{name} has no time of day: write it too, such as 2026-01-31 09:00"),
    N_("{name} has no zone: write it, as in {example}, or give --zone Asia/Shanghai"),
    N_("{name} is after the year {year}"),
    N_("{name} is no time, such as {example}"),
    N_("{name} is not {encoding} text"),
    N_(
        "{name} may be a span of hours, or have an offset: write when it begins, or T in front of"
        " the hour, such as {example}"
    ),
    N_("{name} may be one of two days: write the year first, then the month"),
    N_("{name} would read “{sample}”"),
    N_(
        "{name}: the clocks of {zone} never show {time}, for they are set forward over it: write"
        " another time, or its offset, such as {example}"
    ),
    N_(
        "{name}: the clocks of {zone} show {time} twice, for they are set back over it: write its"
        " offset, {first} or {second}"
    ),
    N_("{name}: there is no such day or time"),
    N_(
        "{path} has no header: line {line} holds a number already. Write a header with"
        " recipient, template_id, param_1 ..., or load numbers alone with --recipients-only."
    ),
    N_("{path} has no header, and --column needs one: line {line} has a number already."),
    N_(
        "{path} has no header, and its first column has no numbers: write a first line that names"
        " the columns, such as name,phone."
    ),
    N_("{path} can be read only once: save the list as a file."),
    N_("{path} cannot be read: {strerror}."),
    N_("{path} has no sheet {wanted}: it has {names}."),
    N_("{path} has several sheets ({names}): name one with --sheet."),
    N_(
        "{path} is a zip file, and not an Excel workbook that can be read: save or export it as"
        " .xlsx, or as CSV UTF-8."
    ),
    N_(
        "{path} is an old or a protected Excel file: save it as .xlsx without a password, or as"
        " CSV UTF-8."
    ),
    N_("{path} is damaged after row {row}: open it in Excel and save it."),
    N_("{path} is too big when it is unpacked: save the sheet as CSV UTF-8, and load that."),
    N_("{path} is empty."),
    N_("{path} is {kind}, and no list: save or export it as .xlsx, or as CSV UTF-8."),
    N_("{path} is empty: it has no lines but blank ones."),
    N_("{path} is empty: no visible sheet has rows."),
    N_(
        "The list cannot be written to a temporary folder ({why}): make room there, or"
        " set TMPDIR for the service."
    ),
)
# What the reader of a list lets pass and the database refuses, as `db.file_import` names it.
_OF_DATABASE: Final[Mapping[str, str]] = {
    "template id has no blanks": N_("template_id has a blank in it"),
    "sender has no blanks": N_("sender has a blank in it"),
    "signature has no blank at its ends and no line break": N_("signature has a line break in it"),
    "params has at most 20 variables": N_("it has more than 20 variables"),
    "params has at most 64 kilobytes": N_("its variables are too long: 64 KB is the most"),
    "send at is in the years 2000 to 9999": N_("send_at is not in the years 2000 to 9999"),
    "expires at is in the years 2000 to 9999": N_("expires_at is not in the years 2000 to 9999"),
}
_OTHERS_OF_DATABASE: Final = (
    N_("its idempotency_key was used before"),
    N_("it holds a value that PostgreSQL cannot store"),
)


def list_text(text: str) -> str:
    """Return a reason or a note of a list in the language of the present context."""
    text = _OF_DATABASE.get(text, text)
    if (shown := stored_text(text, LIST_TEXTS)) != text:
        return shown
    column, colon, reason = text.partition(": ")
    if colon and (column in COLUMNS or PARAM.fullmatch(column)):
        return column + _(": ") + list_text(reason)
    sentence = f"{text[:1].upper()}{text[1:]}."  # of variables, as core.templates has it
    shown = stored_text(sentence)
    return shown[:-1] if shown != sentence else text
