"""Azure Resource Manager's side of the model: ids, errors, documents, templates. Pure."""
