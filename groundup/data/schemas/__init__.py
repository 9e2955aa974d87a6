"""The ways in which others write down chats, preferences, tool calls and questions."""
