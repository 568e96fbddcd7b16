"""Plain English words that common tokenizers give one token each (with the space before): n words are about n tokens.

Checked with the vocabularies of SmolLM2 (byte-level BPE) and Gemma 3 (SentencePiece); ``prompts.calibrate`` measures others.
"""

from __future__ import annotations

TEXT = """
time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home water room
mother area money story fact month lot right study book eye job word business issue side kind head house
service friend father power hour game line end member law car city community name president team minute idea
body information back parent face level office door health person art war history party result change
morning reason research girl guy moment air teacher force education foot boy age policy process music market
sense nation plan college interest death experience effect use class control care field development role
effort rate heart drug show leader light voice wife police mind price report decision son view relationship
town road arm difference value building action season society tax director position player record paper
space ground form event official matter center couple site project activity star table need court oil
situation cost industry figure street image phone data picture practice piece land product doctor wall
patient worker news test movie north love support technology be have do say go get make know think take see
come want look find give tell call try ask feel become leave put mean keep let begin seem help talk turn
start hear play run move like live believe hold bring happen write provide sit stand lose pay meet include
continue set learn lead understand watch follow stop create speak read allow add spend grow open walk win
offer remember consider appear buy wait serve die send expect build stay fall cut reach kill remain suggest
raise pass sell require decide pull good new first last long great little own other old big high different
small large next early young important few public bad same able free full hard clear sure low late real best
whole strong possible short single red green blue white black cold warm deep fast slow the of and to in a is
that for it as was with on by at from or an this but not are his her they you we which she one all there
when can more if no out so up into than them some could two then only its over also after most through where
much before between because each under while about again never always often still here today together around
later away soon far near yet perhaps
"""
WORDS: tuple[str, ...] = tuple(TEXT.split())
