"""How the bundled weights of "synth50" are made: drawn images, a recipe, three stages."""
