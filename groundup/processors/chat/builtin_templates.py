"""Chat templates by name, in Jinja. ``{% generation %}`` is around what the model learns, its stop
token too."""

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

# How Qwen 2.5 is told of tools, calls them and is given their results (the format of Nous
# Research's Hermes 2 Pro). Results that follow each other share one user turn. ``DEFAULT`` is what
# is said where there is no system prompt.
_WITH_TOOLS = """\
{%- set ns = namespace(first=0, system=DEFAULT) %}
{%- if messages and messages[0].role == 'system' %}
    {%- set ns.system = messages[0].content %}
    {%- set ns.first = 1 %}
{%- endif %}
{%- if tools %}
    {{- '<|im_start|>system\\n' + (ns.system + '\\n\\n' if ns.system else '') }}
    {{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n' }}
    {{- 'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
    {%- for tool in tools %}{{ '\\n' + tool | tojson }}{% endfor %}
    {{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments ' }}
    {{- 'within <tool_call></tool_call> XML tags:\\n<tool_call>\\n' }}
    {{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif ns.system or ns.first %}
    {{- '<|im_start|>system\\n' + ns.system + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages[ns.first:] %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}
            {{- message.content }}
            {%- for call in message.tool_calls or [] %}
                {{- '' if loop.first and not message.content else '\\n' }}
                {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
                {{- call.function.arguments | tojson + '}\\n</tool_call>' }}
            {%- endfor %}
            {{- '<|im_end|>' }}{% endgeneration %}
        {{- '\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user' if loop.first or loop.previtem.role != 'tool' else '' }}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' else '' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

# ChatML, without a system prompt of its own.
CHATML = _WITH_TOOLS.replace("DEFAULT", "''")

# Qwen 2.5 (Yang et al., 2024, arXiv:2412.15115): ChatML with a system prompt where the conversation
# has none.
QWEN = _WITH_TOOLS.replace(
    "DEFAULT", "'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.'"
)

# Llama 3 Instruct (Grattafiori et al., 2024, arXiv:2407.21783), and with tools as from 3.1 on: they
# are described in the first question, after a system prompt with the dates that its own template
# has by default; one is called at once. What a tool returned is shown as JSON.
LLAMA3 = """\
{{- bos_token }}
{%- set ns = namespace(system='', first=0) %}
{%- if tools %}
    {%- if messages and messages[0].role == 'system' %}
        {%- set ns.system = messages[0].content | trim %}
        {%- set ns.first = 1 %}
    {%- endif %}
    {%- if messages | length <= ns.first or messages[ns.first].role != 'user' %}
        {{- raise_exception('llama3 describes tools in the first question, and the conversation begins with none') }}
    {%- endif %}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\nEnvironment: ipython\\n' }}
    {{- 'Cutting Knowledge Date: December 2023\\nToday Date: 26 Jul 2024\\n\\n' + ns.system + '<|eot_id|>' }}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\nGiven the following functions, please respond with a ' }}
    {{- 'JSON for a function call with its proper arguments that best answers the given prompt.\\n\\n' }}
    {{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}
    {{- 'Do not use variables.\\n\\n' }}
    {%- for tool in tools %}{{ tool | tojson(indent=4) + '\\n\\n' }}{% endfor %}
    {{- messages[ns.first].content | trim + '<|eot_id|>' }}
    {%- set ns.first = ns.first + 1 %}
{%- endif %}
{%- for message in messages[ns.first:] %}
    {%- set role = 'ipython' if message.role == 'tool' else message.role %}
    {{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}
    {%- if role == 'assistant' %}
        {%- generation %}
            {{- message.content | trim }}
            {%- if message.tool_calls %}
                {%- if message.tool_calls | length > 1 %}
                    {{- raise_exception('llama3 calls one tool at a time, and an answer calls several') }}
                {%- endif %}
                {%- set call = message.tool_calls[0].function %}
                {{- ('\\n\\n' if message.content | trim else '') + '{"name": "' + call.name + '", "parameters": ' }}
                {{- call.arguments | tojson + '}' }}
            {%- endif %}
            {{- '<|eot_id|>' }}{% endgeneration %}
    {%- elif role == 'ipython' %}
        {{- message.content | tojson + '<|eot_id|>' }}
    {%- else %}
        {{- message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""

# Families without a system role read the system prompt at the start of the first user turn. USER
# and ANSWER show ``system + message.content`` and ``message.content``.
_WITHOUT_SYSTEM = """\
{{- BEGIN }}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set ns.system = SYSTEM %}
    {%- elif message.role == 'user' %}
        {{- USER }}
        {%- set ns.system = '' %}
    {%- elif message.role == 'assistant' %}
        {{- OPEN }}
        {%- generation %}{{ ANSWER }}{% endgeneration %}
        {{- CLOSE }}
    {%- else %}
        {{- raise_exception('the template FAMILY has no role for what a tool returns') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ OPEN }}{% endif %}
"""


def _without_system(family: str, **parts: str) -> str:
    source = _WITHOUT_SYSTEM.replace("FAMILY", family)
    for name, part in parts.items():
        source = source.replace(name, part)
    return source


# Llama 2 Chat (Touvron et al., 2023, arXiv:2307.09288). [INST] is plain text; each question begins
# a document.
LLAMA2 = _without_system(
    "llama2",
    BEGIN="''",
    SYSTEM="'<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n'",
    USER="bos_token + '[INST] ' + (ns.system + message.content) | trim + ' [/INST]'",
    OPEN="''",
    ANSWER="' ' + message.content | trim + ' ' + eos_token",
    CLOSE="''",
)

# Mistral 7B Instruct 0.3 (Jiang et al., 2023, arXiv:2310.06825). Its own template puts the system
# prompt and the tools before the last question; here they are before the first, so that a
# conversation begins with the tokens of its earlier turns. A call has a name of nine characters;
# one without such a name is called by its number.
MISTRAL = """\
{{- bos_token }}
{%- set ns = namespace(system='', told=false, calls=[], answered=0) %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set ns.system = message.content + '\\n\\n' %}
    {%- elif message.role == 'user' %}
        {%- if tools and not ns.told %}
            {{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}
            {%- set ns.told = true %}
        {%- endif %}
        {{- '[INST] ' + ns.system + message.content + '[/INST]' }}
        {%- set ns.system = '' %}
    {%- elif message.role == 'assistant' %}
        {%- generation %}
            {{- ' ' + message.content | trim if message.content or not message.tool_calls else '' }}
            {%- for call in message.tool_calls or [] %}
                {%- set ns.calls = ns.calls + [call.id or ''] %}
                {%- set name = call.id if call.id and call.id | length == 9 else '%09d' % (ns.calls | length) %}
                {{- '[TOOL_CALLS] [' if loop.first else ', ' }}
                {{- '{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson }}
                {{- ', "id": "' + name + '"}' + (']' if loop.last else '') }}
            {%- endfor %}
            {{- eos_token }}{% endgeneration %}
    {%- else %}
        {%- set ns.answered = ns.answered + 1 %}
        {%- set known = message.tool_call_id and message.tool_call_id in ns.calls %}
        {%- set number = ns.calls.index(message.tool_call_id) + 1 if known else ns.answered %}
        {%- set name = ns.calls[number - 1] if number <= ns.calls | length else '' %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content + ', "call_id": "' }}
        {{- (name if name | length == 9 else '%09d' % number) + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
"""

# Gemma 1 to 3 (Gemma Team, 2024, arXiv:2403.08295, section 5). 3 puts the system prompt here; 1 and
# 2 refuse it.
GEMMA = _without_system(
    "gemma",
    BEGIN="bos_token",
    SYSTEM="message.content + '\\n\\n'",
    USER="'<start_of_turn>user\\n' + ns.system + message.content | trim + '<end_of_turn>\\n'",
    OPEN="'<start_of_turn>model\\n'",
    ANSWER="message.content | trim + '<end_of_turn>'",
    CLOSE="'\\n'",
)

# Phi-3 and 3.5 mini (Abdin et al., 2024, arXiv:2404.14219, section 2).
PHI = """\
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- raise_exception('the template phi has no role for what a tool returns') }}
    {%- endif %}
    {{- '<|' + message.role + '|>\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ message.content + '<|end|>' }}{% endgeneration %}
    {%- else %}
        {{- message.content + '<|end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}
"""

# For models never fine-tuned: plain text, an answer ends as a document does. The space belongs to
# the answer, because that is how tokenizers join it to a word.
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

TEMPLATES: dict[str, str] = {
    "groundup": GROUNDUP,
    "plain": PLAIN,
    "chatml": CHATML,
    "qwen": QWEN,
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "phi": PHI,
}
