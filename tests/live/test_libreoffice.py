"""LibreOffice's own WebDAV client: a document by its URL, over S3; `make client-libreoffice`."""

import re
import zipfile
from pathlib import Path

import pytest

from tests.live.serving import Serving, large_program, run

pytestmark = [pytest.mark.live, pytest.mark.slow]

# What File > Save As, Save, Close and Open do; without somebody to ask, it takes no lock.
MACRO = """
Sub Main
  On Error Goto Failed
  Dim opening(1) As New com.sun.star.beans.PropertyValue
  opening(0).Name = "InteractionHandler"
  opening(0).Value = createUnoService("com.sun.star.task.InteractionHandler")
  opening(1).Name = "Hidden"
  opening(1).Value = True
  Dim saving(0) As New com.sun.star.beans.PropertyValue
  saving(0) = opening(0)
  text = StarDesktop.loadComponentFromURL("private:factory/swriter", "_blank", 0, opening())
  text.Text.insertString(text.Text.End, "First. ", False)
  text.storeAsURL("%s", saving())
  text.Text.insertString(text.Text.End, "Second. ", False)
  text.store()
  text.close(True)
  text = StarDesktop.loadComponentFromURL("%s", "_blank", 0, opening())
  text.Text.insertString(text.Text.End, "Third.", False)
  text.store()
  text.close(True)
Failed:
  StarDesktop.terminate()
End Sub
"""
LIBRARIES = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE library:libraries PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "libraries.dtd">
<library:libraries xmlns:library="http://openoffice.org/2000/library"
    xmlns:xlink="http://www.w3.org/1999/xlink">
  <library:library library:name="Standard" xlink:href="$(USER)/basic/Standard/script.xlb/"
    xlink:type="simple" library:link="false"/>
</library:libraries>
"""
LIBRARY = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE library:library PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "library.dtd">
<library:library xmlns:library="http://openoffice.org/2000/library" library:name="Standard"
    library:readonly="false" library:passwordprotected="false">
  <library:element library:name="Module1"/>
</library:library>
"""
MODULE = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE script:module PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "module.dtd">
<script:module xmlns:script="http://openoffice.org/2000/script" script:name="Module1"
    script:language="StarBasic">%s</script:module>
"""


@pytest.fixture(scope="module")
def http_name() -> str:
    return "cheroot"


def add_macro(profile: Path, macro: str) -> None:
    """Into the user's own ones, which the first start has made."""
    basic = profile / "user" / "basic"
    (basic / "script.xlc").write_text(LIBRARIES)
    (basic / "Standard" / "script.xlb").write_text(LIBRARY)
    (basic / "Standard" / "Module1.xba").write_text(MODULE % macro)


def test_libreoffice_locks_and_saves_by_its_own_client(s3_share: Serving, tmp_path: Path) -> None:
    office = [
        large_program("soffice"),
        f"-env:UserInstallation=file://{tmp_path}/profile",
        "--headless",
    ]
    run(*office, "--terminate_after_init")
    add_macro(tmp_path / "profile", MACRO.replace("%s", s3_share.url + "a%20text.odt"))
    run(*office, "macro:///Standard.Module1.Main")
    saved = tmp_path / "saved.odt"
    run("curl", "-sf", "-o", str(saved), s3_share.url + "a%20text.odt")
    text = zipfile.ZipFile(saved).read("content.xml").decode()
    assert "First. Second. Third." in re.sub("<[^>]*>", "", text)
    said = re.findall(r'"(LOCK|PUT|UNLOCK) /a text\.odt" (\d+)', s3_share.log.read_text())
    first = [("LOCK", "201"), ("PUT", "204"), ("PUT", "204"), ("UNLOCK", "204")]
    assert said == [*first, ("LOCK", "200"), ("PUT", "204"), ("UNLOCK", "204")]
