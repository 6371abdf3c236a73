"""What is attested of a build: the packages in it (SPDX) and where it comes from (SLSA provenance)."""
