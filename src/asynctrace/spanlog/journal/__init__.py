"""The journal: a span log whose segments are files, so that the next process can deliver what this one could not.

    <state directory>/v1/<service>/<journal id>.j/
      lock              flock: held = its process lives             _lock.py
      meta              who wrote it                                _format.py
      NNNNNNNN.seg      records                                     _segment_file.py, read by _segment_reader.py
      open-00.slab      spans that are open                         _slab.py
      <lane>.lane       cursor, windows, runs of a lane             _lane_file.py

    while its process lives   _log.py (appends) · _journal.py (the files) · _keeper.py (the thread) · _mirror.py
    when it is dead           _directory.py (list, claim) · _orphan.py (read like a span log) · _retention.py (when it goes)
    seen from outside         _look.py (one, without claiming it) · _descendants.py (those of one's children)

What holds for all of them: a word is stored once, after what it speaks of; bytes below the last word never change; a
window is stored before its bytes leave, a run before the cursor passes it; only who holds the lock of the current inode
writes; what is damaged loses only itself.
"""

from ._directory import (
    JournalDirectory,
    JournalEntry,
    JournalState,
    claim,
    list_journals,
    quarantine,
    quarantine_damaged,
    service_folder,
    service_path,
)
from ._format import FORMAT_VERSION, HEADER_BYTES, JournalMeta, decode_meta, encode_meta, line_of_descent
from ._journal import Journal
from ._log import JournalLog
from ._orphan import OrphanLog
from ._retention import Removed, remove_expired
from ._segment_file import FileSegment
from ._segment_reader import ReadSegment, read_segment
from ._state import Choice, Mode, check_state, choose

__all__ = [
    # a journal of this process
    "Journal",
    "JournalDirectory",
    "JournalLog",
    "FileSegment",
    # journals of others
    "JournalEntry",
    "JournalState",
    "OrphanLog",
    "ReadSegment",
    "claim",
    "list_journals",
    "quarantine",
    "quarantine_damaged",
    "read_segment",
    "Removed",
    "remove_expired",
    # where they are
    "Choice",
    "Mode",
    "check_state",
    "choose",
    "service_folder",
    "service_path",
    # what they look like
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "JournalMeta",
    "decode_meta",
    "encode_meta",
    "line_of_descent",
]
