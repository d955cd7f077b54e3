"""The questions of the user's document, for checks that need some and belong to no job."""

DOCUMENT_QUESTIONS = (
    "Who was the first President of the United States?",
    "When did World War II end?",
    "Who wrote Romeo and Juliet?",
    "What was the Manhattan Project?",
    "Who was the first person to walk on the moon?",
    "What happened at Woodstock?",
    "Who invented the Internet?",
    "What is a smartphone?",
)
"""Its prompts for manual testing: the first half from before the cutoff, the second from after it."""
