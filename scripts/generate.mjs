// Generates src/database/generated from prisma/schema.prisma without Prisma's native engine and without the network.
// The packages' ESM builds are broken in 7.10.0, hence createRequire.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { getGenerators, loadSchemaContext } = require("@prisma/internals");
const { PrismaClientTsGenerator } = require("@prisma/client-generator-ts");

const schemaContext = await loadSchemaContext({
  schemaPath: { cliProvidedPath: "prisma/schema.prisma" },
  cwd: process.cwd(),
});
const generators = await getGenerators({
  schemaContext,
  registry: { "prisma-client": { type: "in-process", generator: new PrismaClientTsGenerator() } },
  skipDownload: true,
  cliCommand: "generate",
  version: "7.10.0",
});
for (const generator of generators) {
  await generator.generate();
  generator.stop();
}
