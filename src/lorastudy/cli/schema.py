"""`schema`: the JSON Schema with which editors help to write study files."""


def schema() -> None:
    """Print the JSON Schema of study files, for editors that complete and check YAML.

    `lorastudy init` writes it beside the study file, whose first line names it for editors:
    # yaml-language-server: $schema=lorastudy.schema.json
    """
    from lorastudy.config.study_file import schema_text

    print(schema_text(), end="")
