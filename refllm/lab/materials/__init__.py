"""What experiments are made of: texts, tasks with one right answer, small models, n-gram tables, an arithmetic coder."""
