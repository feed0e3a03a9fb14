"""From a configuration file to a report: stages that read files and write files."""
