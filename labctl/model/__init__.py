"""The nouns: frozen values, validated once at the edge."""
