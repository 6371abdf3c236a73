"""Every job that the launcher's children can do: its name, and the module and function that do it.

Names in words, not taken from the modules: the engine must not load what only a child runs (tests/unit/test_jobs.py compares them).
"""

from __future__ import annotations

JOBS = {
    "unpack": "corten.store.unpack:job",
    "pack": "corten.store.packing:job",
    "pack-layer": "corten.store.packing:layer_job",
    "save": "corten.store.image_writer:job",
    "diff": "corten.store.layer_diff:diff_job",
    "seal": "corten.store.layer_seal:seal_job",
    "check-layer": "corten.store.layer_check:job",
    "tar": "corten.store.tar_job:job",
    "copy-up": "corten.engine.copy_up_job:job",
    "idmap": "corten.engine.idmap:job",
    "copy": "corten.engine.copy_job:job",
    "context": "corten.builder.context_job:job",
    "kept-contents": "corten.builder.kept_job:job",
    "build-files": "corten.builder.file_job:job",
    "oci-tar": "corten.builder.outputs.oci_tar:job",
    "pack-cache-mount": "corten.builder.cache_transfer.mount_job:pack_job",
    "unpack-cache-mount": "corten.builder.cache_transfer.mount_job:unpack_job",
    "scan-packages": "corten.builder.attest.scan_job:job",
    "tree-tar": "corten.builder.outputs.tree_tar:job",
}
