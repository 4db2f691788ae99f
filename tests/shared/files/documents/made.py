"""Small documents, written out byte by byte."""

import zipfile
from io import BytesIO

_FONT = (
    (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /HeiseiKakuGo-W5 /Encoding /UniJIS-UCS2-H "
        b"/DescendantFonts [4 0 R] >>"
    ),
    (
        b"<< /Type /Font /Subtype /CIDFontType0 /BaseFont /HeiseiKakuGo-W5 /CIDSystemInfo << "
        b"/Registry (Adobe) /Ordering (Japan1) /Supplement 2 >> /FontDescriptor << /Type "
        b"/FontDescriptor /FontName /HeiseiKakuGo-W5 /Flags 4 /FontBBox [0 -100 1000 900] "
        b"/ItalicAngle 0 /Ascent 752 /Descent -221 /CapHeight 737 /StemV 114 >> >>"
    ),
)


def pdf(*pages: str, kids: str = "", trailer: bytes = b"") -> bytes:
    """A PDF of these pages, in a Japanese font that it does not bring along."""
    kids = kids or " ".join(f"{5 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        *_FONT,
    ]
    for number, text in enumerate(pages):
        shown = f"<{text.encode('utf-16-be').hex()}> Tj" if text else ""
        content = f"BT /F1 12 Tf 50 700 Td {shown} ET".encode()
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 "
            b"3 0 R >> >> /Contents %d 0 R >>" % (6 + 2 * number),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        ]
    body, offsets = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    return body + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R %s >>\n"
        b"startxref\n%d\n%%%%EOF\n" % (size, table, size, trailer, len(body))
    )


LOCKED = (
    b"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <" + b"41" * 32 + b"> /U <" + b"42" * 32
    + b"> >> /ID [<00><00>]"
)  # fmt: skip
"""A trailer's entry: a password is needed."""

_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx(body: str, dtd: str = "", **parts: bytes) -> bytes:
    """A DOCX with this body, and perhaps further parts."""
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    types = (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default '
        'Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{main}"/></Types>'
    )
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r1" Type="{kind}" Target="word/document.xml"/></Relationships>'
    )
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("[Content_Types].xml", types)
        package.writestr("_rels/.rels", relations)
        document = f"{dtd}<w:document {_W}><w:body>{body}</w:body></w:document>"
        package.writestr("word/document.xml", document)
        for name, content in parts.items():
            package.writestr(f"word/{name}.xml", content)
    return file.getvalue()


def paragraph(text: str, style: str = "") -> str:
    """One of DOCX's paragraphs."""
    styled = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{styled}<w:r><w:t>{text}</w:t></w:r></w:p>"


STYLES = (
    f'<w:styles {_W}><w:style w:type="paragraph" w:styleId="Heading1">'
    '<w:name w:val="heading 1"/></w:style></w:styles>'
).encode()
