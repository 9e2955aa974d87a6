"""Chat templates by name, in Jinja. ``{% generation %}`` is around what the model learns, its stop token too."""

from __future__ import annotations

__all__ = ["TEMPLATES"]

# The template of tokenizers trained here: every role has a token of its own.
GROUNDUP = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '' if loop.first else '\\n' }}
    {{- '<|' + message.role + '|>\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ message.content + '<|end|>' }}{% endgeneration %}
    {%- else %}
        {{- message.content + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '\\n<|assistant|>\\n' if messages else '<|assistant|>\\n' }}{% endif %}
"""

# ChatML, as in Qwen and many others.
CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

# Llama 3 Instruct (Grattafiori et al., 2024, arXiv:2407.21783), without tools and dates.
LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
    {%- set role = 'ipython' if message.role == 'tool' else message.role %}
    {{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}
    {%- if role == 'assistant' %}
        {%- generation %}{{ message.content | trim + '<|eot_id|>' }}{% endgeneration %}
    {%- else %}
        {{- message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""

# For models never fine-tuned: plain text, an answer ends as a document does. The space belongs to the answer, because
# that is how tokenizers join it to a word.
PLAIN = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- 'Answer:' }}
        {%- generation %}{{ ' ' + message.content + eos_token }}{% endgeneration %}
    {%- elif message.role == 'user' %}
        {{- 'Question: ' + message.content + '\\n' }}
    {%- else %}
        {{- message.content + '\\n\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Answer:' }}{% endif %}
"""

TEMPLATES: dict[str, str] = {"groundup": GROUNDUP, "chatml": CHATML, "llama3": LLAMA3, "plain": PLAIN}
