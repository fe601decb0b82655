-- CreateIndex
CREATE INDEX "card_open" ON "cards"("platform", "workspace") WHERE ("announced" = false);
