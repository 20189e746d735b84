"""Docker's contexts: named daemons, kept in docker's own store so that both programs share them."""
