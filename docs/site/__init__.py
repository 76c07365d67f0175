"""The documentation's site: its code blocks are run and its pictures drawn by the build."""
