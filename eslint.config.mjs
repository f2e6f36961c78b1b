import tseslint from "typescript-eslint";

export default tseslint.config(
  {
    ignores: [
      "node_modules",
      ".sandbox",
      "app",
      "sdks",
      "sandbox/suites",
      "sandbox/load",
      "**/*.mjs",
    ],
  },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/switch-exhaustiveness-check": "error",
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      // The Kubernetes client's models are classes, and meant to be written as literals.
      "@typescript-eslint/no-unsafe-class-instance-assignment": "off",
      // A Pulumi resource is made by constructing it; a component's class may hold nothing else.
      "no-new": "off",
      "@typescript-eslint/no-extraneous-class": "off",
      // Index signatures are read with brackets, as tsconfig asks.
      "@typescript-eslint/dot-notation": "off",
      "no-restricted-syntax": [
        "error",
        {
          selector: "CallExpression[callee.property.name='apply'] NewExpression[callee.property]",
          message: "A resource made in an apply is missing from previews.",
        },
        {
          selector:
            "CallExpression[callee.property.name='apply'] CallExpression[callee.object.name='assert']",
          message: "An assertion in an apply is never awaited: it cannot fail.",
        },
      ],
    },
  },
  {
    files: ["test/**"],
    rules: {
      // mocha's describe and it.
      "@typescript-eslint/no-floating-promises": "off",
    },
  },
);
