import fc from "fast-check";
import { expect, it } from "vitest";
import { parse as parseYaml } from "yaml";
import { userDataOf } from "../../../src/clouds/openstack/user-data.ts";
import { ServiceError } from "../../../src/core/errors.ts";

// As cloud-init's PyYAML does.
const parse = (text: string) => parseYaml(text, { version: "1.1" });
const decoded = (encoded: string): string => Buffer.from(encoded, "base64").toString("utf8");

it("is a cloud-config that sets the password of the image's user and lets it log in", () => {
  const text = decoded(userDataOf({ user: "debian", password: "x" }));
  expect(text.startsWith("#cloud-config\n")).toBe(true);
  expect(parse(text)).toEqual({
    ssh_pwauth: true,
    chpasswd: { expire: false, users: [{ name: "debian", password: "x", type: "text" }] },
  });
});

it("is root when the image names nobody, and then root may log in", () => {
  expect(parse(decoded(userDataOf({ user: null, password: "x" })))).toMatchObject({
    disable_root: false,
    chpasswd: { users: [{ name: "root" }] },
  });
});

it("carries any password unchanged: it is data, never syntax", () => {
  const awkward = fc.oneof(
    fc.string({ unit: "grapheme", minLength: 1 }).filter((text) => !/[\p{Cc}\u2028\u2029\uFEFF]/u.test(text)),
    fc.constantFrom(
      "#x",
      "a: b",
      "- x",
      "'\"",
      "yes",
      "0123",
      "1e3",
      "~",
      "null",

      "${HOME}",
      "\\n",
    ),
  );
  fc.assert(
    fc.property(awkward, (password) => {
      const config = parse(decoded(userDataOf({ user: "debian", password })));
      expect(config.chpasswd.users).toEqual([{ name: "debian", password, type: "text" }]);
      expect(Object.keys(config).toSorted()).toEqual(["chpasswd", "ssh_pwauth"]);
    }),
  );
});

it.each(["a\nb", "a\u0085b", "a\u2028b", "\u0000"])("refuses what cannot be typed: %j", (password) => {
  expect(() => userDataOf({ user: "debian", password })).toThrow(/cannot be typed/u);
});

it("is refused when Nova would refuse it", () => {
  expect(() => userDataOf({ user: null, password: "x".repeat(60_000) })).toThrow(ServiceError);
});
